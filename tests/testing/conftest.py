"""The fixtures of the SDK's tests, for these too."""

from tests.sdk.conftest import recorder as recorder
