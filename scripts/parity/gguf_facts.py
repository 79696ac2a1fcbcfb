"""What the gguf package reads in a GGUF file, for gguf.ts.

  python gguf_facts.py FILE

Prints one JSON line {version, tensors: [[name, type, shape]], metadata: {key: value}}; arrays longer than 8 appear as
{length, type, sha256} with the digest of their elements' bytes one after the other, each with a zero byte behind it.
"""
import hashlib
import json
import sys

import gguf


def value_of(field):
    contents = field.contents()
    if not isinstance(contents, list) or len(contents) <= 8:
        return contents
    digest = hashlib.sha256()
    for element in contents:
        digest.update(str(element).encode() + b"\0")
    return {"length": len(contents), "type": field.types[-1].name, "sha256": digest.hexdigest()}


def main(path):
    reader = gguf.GGUFReader(path)
    tensors = [[t.name, t.tensor_type.name, [int(size) for size in t.shape]] for t in reader.tensors]
    metadata = {name: value_of(field) for name, field in reader.fields.items()}
    print(json.dumps({"tensors": tensors, "metadata": metadata}))


main(sys.argv[1])
