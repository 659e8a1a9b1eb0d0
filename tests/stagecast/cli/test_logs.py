"""What the services write to stderr when it is no terminal."""

import json
import subprocess
import sys

SCRIPT = """
import logging, structlog
from stagecast.cli.logs import log_to_stderr
log_to_stderr()
structlog.get_logger().info("ours", said="a\\nb")
library = logging.getLogger("library")
library.warning("one\\ntwo \\x1b[31m%s", "\\u2028")
library.info("not worth a line")
try:
    1 / 0
except ZeroDivisionError:
    library.exception("broke")
"""


def test_every_line_is_one_json_object() -> None:
    """Our own words, a library's warning and its traceback: one object a line, control characters escaped; its small talk is left
    out."""
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stderr
    lines = [json.loads(line) for line in said.split("\n") if line]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("ours", "info"),
        ("one\ntwo \x1b[31m\u2028", "warning"),
        ("broke", "error"),
    ]
    assert "ZeroDivisionError" in lines[2]["exception"]
    assert said.replace("\n", "").isprintable()
    assert said.isascii()
