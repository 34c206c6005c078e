"""What the host itself brings, registered through the same hooks as everyone's plugins."""
