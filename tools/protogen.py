"""Generates `sdk/headrace/v1` and the server's rule image from `proto/`.

Run by `make proto` in an environment of its own (see the Makefile): the generator is pinned to an old
grpcio-tools on purpose, because the generator's version is the floor of what users must install.

The Python code is generated *without* the validation rules: a `buf/validate` module in the SDK would
collide with another version of it in a user's program. The rules travel to the server as a descriptor
set and are checked there.

`--check` writes nothing and fails when what is committed is not what would be generated.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
SDK = pathlib.Path("sdk")
PACKAGE = SDK / "headrace" / "v1"
RULES = pathlib.Path("services", "headrace_services", "rpc", "rules.binpb")
VALIDATE = "buf/validate/validate.proto"
MARKER = '"""The wire: generated from `proto/headrace/v1` by `make proto`, never edited."""\n'


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="compare only")
    with tempfile.TemporaryDirectory() as scratch:
        made = pathlib.Path(scratch)
        generate(made)
        if arguments.parse_args().check:
            return report(differences(made))
        install(made)
        return 0


def generate(root: pathlib.Path) -> None:
    """Write the generated files below `root`, at the paths they have in the repository."""
    sources = sorted(str(path.relative_to(PROTO)) for path in (PROTO / "headrace").rglob("*.proto"))
    (root / SDK).mkdir(parents=True)
    (root / RULES).parent.mkdir(parents=True)
    run_protoc("--include_imports", f"--descriptor_set_out={root / RULES}", *sources)
    documented = root / "documented.binpb"
    run_protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={documented}", *sources)
    files = descriptor_pb2.FileDescriptorSet.FromString(documented.read_bytes())
    documented.write_bytes(strip_rules(files).SerializeToString(deterministic=True))
    outputs = [f"{kind}={root / SDK}" for kind in ("--python_out", "--grpc_python_out")]
    outputs += [f"{kind}=quiet:{root / SDK}" for kind in ("--mypy_out", "--mypy_grpc_out")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={documented}"]
    subprocess.run([*command, *outputs, *sources], check=True)
    remove_empty_stubs(root / PACKAGE, files)
    (root / PACKAGE / "__init__.py").write_text(MARKER)


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


def remove_empty_stubs(package: pathlib.Path, files: descriptor_pb2.FileDescriptorSet) -> None:
    services = {file.name for file in files.file if file.service}
    for stub in package.glob("*_pb2_grpc.py*"):
        if f"headrace/v1/{stub.name.split('_pb2_grpc')[0]}.proto" not in services:
            stub.unlink()


def generated_files(root: pathlib.Path) -> dict[pathlib.Path, bytes]:
    found = [*(root / PACKAGE).glob("*.py"), *(root / PACKAGE).glob("*.pyi"), root / RULES]
    return {path.relative_to(root): path.read_bytes() for path in found if path.exists()}


def differences(made: pathlib.Path) -> list[pathlib.Path]:
    """Paths whose committed content is not the generated one, those that only one side has included."""
    wanted, present = generated_files(made), generated_files(ROOT)
    return sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))


def report(stale: list[pathlib.Path]) -> int:
    for path in stale:
        print(f"{path} is not what proto/ gives: run `make proto`", file=sys.stderr)
    return 1 if stale else 0


def install(made: pathlib.Path) -> None:
    for path in differences(made):
        (ROOT / path).unlink(missing_ok=True)
        if (made / path).exists():
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / path, ROOT / path)


if __name__ == "__main__":
    sys.exit(main())
