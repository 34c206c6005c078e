"""The wire: frames and JSON, the types of answers, and the schemas that follow from them."""
