"""Makes the page of the methods from the OpenRPC document."""

BEGINNING = """\
# Methods

Every method of the server, what it takes and what it answers. [The protocol](../protocol.md)
says how to call one and what its answers mean. This page is made of the declarations that check
requests; `rpc.discover` answers the same as an OpenRPC document with examples.

`?` marks what may be left out of a request, or be missing in an answer. An answer may also be a
[Refusal](#refusal), and may gain keys in later releases.
"""


def page(document):
    """Return the page, as Markdown."""
    parts = [BEGINNING]
    taken = {
        method["name"]: {each["name"]: each["schema"] for each in method["params"]}
        for method in document["methods"]
    }
    shared = {
        "Filters": taken["jobs.summary"],
        "Resources": taken["jobs.submit"]["resources"]["properties"],
    }
    for method in document["methods"]:
        needed = [each["name"] for each in method["params"] if each["required"]]
        given = method["result"]["schema"]["anyOf"][0]
        parts += [f"## {method['name']}\n", method["description"].replace("``", "`") + "\n"]
        parts += table(
            "It takes", {"properties": taken[method["name"]], "required": needed}, shared
        )
        parts += table("It answers", given, shared) or [f"It answers {words(given)}.\n"]
    parts.append("## Records\n")
    for name, schema in document["components"]["schemas"].items():
        parts += [f"### {name}\n", *table("It has", schema, shared)]
    for name, properties in shared.items():
        parts += [f"### {name}\n", *table("They have", {"properties": properties}, {})]
    return "\n".join(parts)


def table(title, schema, shared):
    found = list(rows(schema, shared))
    return [f"| {title} | type | meaning |\n|---|---|---|", *found, ""] if found else []


def rows(schema, shared, place=""):
    """Give a row for each key, also of objects within; one for all that are described elsewhere."""
    properties = dict(schema.get("properties", {}))
    for title, names in shared.items():
        if names.keys() <= properties.keys():
            properties = {name: properties[name] for name in properties.keys() - names.keys()}
            yield f"| `{place}...`? | [{title}](#{title.lower()}) | |"
    for name in schema.get("properties", {}):
        if (each := properties.get(name)) is None:
            continue
        mark = "" if name in schema.get("required", ()) else "?"
        told = each.get("description", "").replace("``", "`").replace("|", "\\|")
        among = [
            title
            for title, names in shared.items()
            if each.get("properties", {}).keys() == names.keys()
        ]
        kind = f"[{among[0]}](#{among[0].lower()})" if among else words(each)
        yield f"| `{place}{name}`{mark} | {kind} | {told} |"
        if among:
            continue
        yield from rows(each, shared, f"{place}{name}.")
        yield from rows(each.get("items", {}), shared, f"{place}{name}[].")


def words(schema):
    """Return which values a schema allows."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(words, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if "type" not in schema:
        return "anything"
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    told = {"array": f"list of {words(schema.get('items', {}))}"}
    return " or ".join(told.get(kind, kind) for kind in kinds) + limits(schema)


def limits(schema):
    least, most = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    found = []
    if least is not None:
        found.append(f"{'above' if 'exclusiveMinimum' in schema else 'from'} {least}")
    if most is not None:
        found.append(f"to {most}")
    for name, word in (("maxItems", "items"), ("maxLength", "characters")):
        if name in schema:
            found.append(f"at most {schema[name]} {word}")
    return f", {' '.join(found)}" if found else ""
