"""The knobs of a node: the defaults pass, and what cannot be is named."""

import msgspec
import pytest

from kvorum.config import MEANINGS, NodeConfig, check_config
from kvorum.errors import SettingsInvalid


def test_the_defaults_pass() -> None:
    check_config(NodeConfig())


MAY_BE_NOUGHT = ("sort_key_bytes_max", "hint_bytes_max", "hint_bytes_per_peer_max")


@pytest.mark.parametrize("name", [name for name in MEANINGS if name not in MAY_BE_NOUGHT])
def test_no_setting_may_be_nought_or_below(name: str) -> None:
    for wrong in (0, -1):
        with pytest.raises(SettingsInvalid, match=f"{name} must be above 0, not {wrong}"):
            check_config(NodeConfig(**{name: wrong}))


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        *(({name: -1}, f"{name} must not be negative") for name in MAY_BE_NOUGHT),
        ({"sort_key_bytes_max": 1025}, "at most 1024"),
        ({"partition_key_bytes_max": 65_536}, "at most 65535"),
        ({"value_bytes_max": (256 << 20) + 1}, "256 MiB"),
        ({"peer_queue_bytes_max": (32 << 20) - 1}, "at least twice value_bytes_max"),
        ({"flush_bytes": (128 << 20) + 1}, "at least twice flush_bytes"),
        ({"reconnect_first_ms": 2_001}, "at least reconnect_first_ms"),
        ({"background_share_max_percent": 91}, "must be at most 90"),
        ({"background_share_min_percent": 41}, "at least background_share_min_percent"),
        ({"probe_interval_ms": 1_667}, "at least 3 times probe_interval_ms"),
        ({"probe_timeout_ms": 251}, "at least twice probe_timeout_ms"),
        ({"gossip_bytes_max": 299}, "gossip_bytes_max must be at least 300"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_settings_that_do_not_fit_each_other_are_refused(
    choices: dict[str, int], text: str
) -> None:
    with pytest.raises(SettingsInvalid, match=text):
        check_config(NodeConfig(**choices))


def test_a_node_may_take_no_sort_keys_at_all() -> None:
    check_config(NodeConfig(sort_key_bytes_max=0))


def test_a_node_may_keep_no_hints_at_all() -> None:
    check_config(NodeConfig(hint_bytes_max=0, hint_bytes_per_peer_max=0))


def test_frames_have_room_for_what_may_be_sent() -> None:
    config = NodeConfig()
    longest_put = (
        config.value_bytes_max + config.context_bytes_max + config.partition_key_bytes_max
        + config.sort_key_bytes_max
    )  # fmt: skip
    assert config.client_frame_bytes_max > longest_put
    assert config.frame_bytes_max >= 2 * config.value_bytes_max
    tiny = NodeConfig(value_bytes_max=1, context_bytes_max=1)
    assert tiny.client_frame_bytes_max == 1 << 16
    assert tiny.frame_bytes_max == 8 << 20


def test_a_setting_that_is_unknown_is_no_setting() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"requests_max": 1}, NodeConfig)
