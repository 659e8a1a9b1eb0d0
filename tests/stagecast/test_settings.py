"""Where settings come from, in which order, and what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stagecast.settings import OTHERS, Settings, SettingsError, load_settings


def load(
    folder: Path, *, toml: str | None = None, environ: Mapping[str, str] | None = None, **flags: object
) -> Settings:
    if toml is not None:
        (folder / "stagecast.toml").write_text(toml)
    return load_settings(flags, environ or {}, cwd=folder)


def test_defaults_are_the_embedded_parts(tmp_path: Path) -> None:
    """Told nothing, everything lies under `.stagecast`; log and store in files of their own."""
    settings = load(tmp_path)
    assert settings == Settings()
    assert settings.data_dir == Path(".stagecast")
    assert settings.log_url == f"sqlite:///{Path.cwd()}/.stagecast/log.sqlite"
    assert settings.store_url == f"sqlite:///{Path.cwd()}/.stagecast/kv.sqlite"
    assert settings.keys_file == Path(".stagecast/keys.json")
    assert settings.log_password is settings.store_password is None


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    """Each setting is taken from the first that gives it; a flag of None was not given."""
    settings = load(
        tmp_path,
        toml='data = "file"\nping = 1\nhost = "file"\nmaps = "file"',
        environ={"STAGECAST_DATA": "env", "STAGECAST_PING": "2", "STAGECAST_MAPS": "env"},
        data="flag",
        maps=None,
    )
    assert (settings.data, settings.ping, settings.host, settings.maps) == ("flag", 2.0, "file", "env")


def test_each_setting_has_all_three_ways(tmp_path: Path) -> None:
    """Every field, by variable, line and flag, comes out the same."""
    values: dict[str, object] = {
        name: {float: 2.5, int: 7, str: "x", bool: True}.get(type(default), ["10.0.0.0/8", "fd00::/8"])
        for name, default in msgspec.structs.asdict(Settings()).items()
    } | {"fan_out": "python"}
    spelt = {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in values.items()}
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    expected = Settings(**values)  # type: ignore[arg-type]  # one value of each field's type
    assert load(tmp_path, environ={f"STAGECAST_{name.upper()}": value for name, value in spelt.items()}) == expected
    assert load_settings(values, {}, cwd=tmp_path) == expected
    assert load(tmp_path, toml=lines) == expected


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"trusted_proxies": ["10.0.0.1/8"]}, "trusted_proxies: 10.0.0.1/8 has host bits set"),
        ({"proxy_protocol": True}, "proxy_protocol: name the proxies"),
    ],
)
def test_settings_that_do_not_fit_together(tmp_path: Path, flags: dict[str, Any], said: str) -> None:
    """A network that is none; a preamble that nobody would be believed to send."""
    with pytest.raises(SettingsError, match=said):
        load(tmp_path, **flags)


def test_the_file_may_be_named(tmp_path: Path) -> None:
    """An argument beats STAGECAST_CONFIG, which beats ./stagecast.toml; a named file must be there."""
    for name in ("one", "two", "stagecast"):
        (tmp_path / f"{name}.toml").write_text(f'host = "{name}"')
    environ = {"STAGECAST_CONFIG": str(tmp_path / "two.toml")}
    assert load_settings({}, environ, tmp_path / "one.toml", tmp_path).host == "one"
    assert load_settings({}, environ, cwd=tmp_path).host == "two"
    assert load_settings({}, {}, cwd=tmp_path).host == "stagecast"
    with pytest.raises(SettingsError, match=r"none\.toml: No such file"):
        load_settings({}, {}, tmp_path / "none.toml", tmp_path)


@pytest.mark.parametrize(
    ("toml", "environ", "flags", "says"),
    [
        ("pingg = 1", {}, {}, r"stagecast\.toml: unknown setting pingg; known are data, log"),
        ("[log]\nurl = 'x'", {}, {}, r"stagecast\.toml: log: "),
        ("ping = ", {}, {}, r"stagecast\.toml: "),
        ("ping = 0", {}, {}, r"stagecast\.toml: ping: "),
        ("host = 5", {}, {}, r"stagecast\.toml: host: "),
        (None, {"STAGECAST_PINGG": "1"}, {}, "the environment: unknown setting STAGECAST_PINGG"),
        (None, {"STAGECAST_PING": "soon"}, {}, "the environment: ping: "),
        (None, {"STAGECAST_PING": "nan"}, {}, "the environment: ping: "),
        (None, {"STAGECAST_PING": ""}, {}, "the environment: ping: "),
        (None, {"STAGECAST_CONNECTIONS": "1.5"}, {}, "the environment: connections: "),
        (None, {}, {"pingg": 1}, "the command line: unknown setting --pingg"),
        (None, {}, {"connections": 0}, "the command line: connections: "),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_source(
    tmp_path: Path, toml: str | None, environ: dict[str, str], flags: dict[str, object], says: str
) -> None:
    """A typing error can't pass in silence, wherever it was made."""
    with pytest.raises(SettingsError, match=says):
        load(tmp_path, toml=toml, environ=environ, **flags)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """By its name, as any other mistake in it."""
    (tmp_path / "stagecast.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"stagecast\.toml: .*utf-8"):
        load_settings({}, {}, cwd=tmp_path)


def test_a_wrong_value_that_is_not_used_is_still_wrong(tmp_path: Path) -> None:
    """A flag over it does not hide a mistake in the file."""
    with pytest.raises(SettingsError, match="ping"):
        load(tmp_path, toml="ping = -1", ping=5)


def test_other_programs_variables_are_left_alone(tmp_path: Path) -> None:
    """Variables without our prefix, and the CLI's own, are no settings."""
    environ = {"PATH": "/bin", "XSTAGECAST_PING": "1", **{f"STAGECAST_{name}": "" for name in OTHERS}}
    assert load(tmp_path, environ=environ) == Settings()


def test_passwords_come_from_files(tmp_path: Path) -> None:
    """The file's text without its line end; a missing file names the setting; no password is in any repr."""
    file = tmp_path / "password"
    file.write_text("s3cret pass\n")
    settings = load(tmp_path, log_password_file=str(file), store_password_file=str(tmp_path / "none"))
    assert settings.log_password == "s3cret pass"
    assert "s3cret" not in f"{settings!r}{settings}{msgspec.json.encode(settings)!r}"
    with pytest.raises(SettingsError, match=r"store_password_file: .*No such file"):
        _ = settings.store_password


def test_settings_are_frozen() -> None:
    """Read once: nobody changes them afterwards."""
    with pytest.raises(AttributeError):
        Settings().data = "x"  # type: ignore[misc]  # the point


def test_every_setting_says_what_it_means() -> None:
    """`--help` and the docs print it."""
    for field in msgspec.inspect.type_info(Settings).fields:  # type: ignore[attr-defined]  # a StructType
        meta = field.type
        assert isinstance(meta, msgspec.inspect.Metadata)
        assert meta.extra_json_schema
        assert meta.extra_json_schema["description"]
