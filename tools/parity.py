"""Writes `tests/parity/expected.json`: what the programs of `tests/parity/programs` find out on Prefect.

And `tests/parity/public.json`: which names, keywords and members there are.

The programs are headrace's; for Prefect the one word in their imports is replaced, as people who move do in
the other direction.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from benchmarks.products.prefect import install

FOLDER = pathlib.Path(__file__).parents[1] / "tests" / "parity"
EXPECTED = FOLDER / "expected.json"
PUBLIC = FOLDER / "public.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=pathlib.Path, help="of an environment that holds Prefect")
    parser.add_argument("--only", help="ask one program, and keep what is known of the others")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        facts = _run(given.python or install(), pathlib.Path(name), given.only or "")
    if given.only:
        facts = {**json.loads(EXPECTED.read_text()), **facts}
    EXPECTED.write_text(json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(f"{sum(map(len, facts.values()))} facts of {len(facts)} programs: {EXPECTED}", file=sys.stderr)


def _run(python: pathlib.Path, folder: pathlib.Path, only: str) -> dict[str, dict[str, object]]:
    programs, peer, out = folder / "programs", folder / "peer", folder / "out.json"
    programs.mkdir()
    shutil.copytree(FOLDER / "peer", peer)
    shutil.copy(FOLDER / "execute.py", peer)
    for file in (FOLDER / "programs").glob("*.py"):
        text = file.read_text().replace("headrace", "prefect").replace("Headrace", "Prefect")
        (programs / file.name).write_text(text)
    environment = {
        "PATH": os.environ["PATH"],
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "DO_NOT_TRACK": "1",
    }
    command = [str(python), str(peer / "main.py"), str(programs), str(out), only]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"the peer failed:\n{done.stdout[-20000:]}")
    if not only:
        names = folder / "public.json"
        subprocess.run([str(python), str(peer / "public.py"), str(names)], env=environment, check=True)
        public = json.loads(_in_our_words(names.read_text()))
        PUBLIC.write_text(json.dumps(public, indent=1, sort_keys=True) + "\n")
    facts: dict[str, dict[str, object]] = json.loads(_in_our_words(out.read_text()))
    return facts


def _in_our_words(text: str) -> str:
    for theirs, ours in (("Prefect", "Headrace"), ("PREFECT", "HEADRACE"), ("prefect", "headrace")):
        text = text.replace(theirs, ours)
    return text


if __name__ == "__main__":
    main()
