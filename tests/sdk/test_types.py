"""Types for annotations."""

from __future__ import annotations

from headrace import flow
from headrace.types import SecretDict
from tests.support.recorders import MemoryRecorder


def test_a_secret_dictionary_is_given_whole_and_recorded_masked(recorder: MemoryRecorder) -> None:
    @flow(name="hides")
    def hides(options: SecretDict) -> object:
        assert "swordfish" not in repr(options)
        return options.get_secret_value()["password"]

    assert hides({"password": "swordfish"}) == "swordfish"  # type: ignore[arg-type]
    assert hides(SecretDict({"password": "swordfish"})) == "swordfish"
    assert b"swordfish" not in recorder.all("hides")[1].run.parameters.inline
