"""Generates `sdk/headrace/v1` and the server's rule image from `proto/`.

Run by `make proto` in an environment of its own (see the Makefile): the generator is pinned to an old
grpcio-tools on purpose, because the generator's version is the floor of what users must install.

The Python code is generated *without* the validation rules: a `buf/validate` module in the SDK would
collide with another version of it in a user's program. The rules travel to the server as a descriptor
set and are checked there.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
SDK = ROOT / "sdk"
OUT = SDK / "headrace" / "v1"
RULES = ROOT / "services" / "headrace_services" / "rpc" / "rules.binpb"
VALIDATE = "buf/validate/validate.proto"


def run_protoc(*args: str) -> None:
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    if protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", *args]) != 0:
        sys.exit(1)


def strip_rules(files: descriptor_pb2.FileDescriptorSet) -> descriptor_pb2.FileDescriptorSet:
    """The same schema without validation options (this process does not know them, so they are
    unknown fields) and without the import that declares them."""
    bare = descriptor_pb2.FileDescriptorSet()
    for file in files.file:
        if file.name == VALIDATE:
            continue
        copy = bare.file.add()
        copy.CopyFrom(file)
        if VALIDATE in copy.dependency:
            copy.dependency.remove(VALIDATE)
            copy.DiscardUnknownFields()
    return bare


def main() -> None:
    sources = sorted(str(p.relative_to(PROTO)) for p in (PROTO / "headrace").rglob("*.proto"))
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.glob("*_pb2*"):
        old.unlink()
    with tempfile.TemporaryDirectory() as tmp:
        full = pathlib.Path(tmp, "full.binpb")
        run_protoc("--include_imports", f"--descriptor_set_out={full}", *sources)
        files = descriptor_pb2.FileDescriptorSet.FromString(full.read_bytes())
        RULES.parent.mkdir(parents=True, exist_ok=True)
        RULES.write_bytes(full.read_bytes())
        with_docs = pathlib.Path(tmp, "docs.binpb")
        run_protoc(
            "--include_imports", "--include_source_info", f"--descriptor_set_out={with_docs}", *sources
        )
        bare = pathlib.Path(tmp, "bare.binpb")
        docs = descriptor_pb2.FileDescriptorSet.FromString(with_docs.read_bytes())
        bare.write_bytes(strip_rules(docs).SerializeToString(deterministic=True))
        outs = ["--python_out", "--grpc_python_out", "--mypy_out", "--mypy_grpc_out"]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={bare}"]
        subprocess.run([*command, *(f"{o}={SDK}" for o in outs), *sources], check=True)
    services = {f.name for f in files.file if f.service}
    for stub in OUT.glob("*_pb2_grpc.py*"):
        if f"headrace/v1/{stub.name.split('_pb2_grpc')[0]}.proto" not in services:
            stub.unlink()
    (OUT / "__init__.py").write_text(
        '"""The wire: generated from `proto/headrace/v1` by `make proto`, never edited."""\n'
    )


if __name__ == "__main__":
    main()
