"""What the documents promise is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from messages import findings_without_mend, flat, literals, messages

from launcher.cli import main_group
from launcher.cli_group import DefaultGroup

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.tensorflow
def test_the_model_of_the_readme_works_as_it_stands(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "MODELS" in c]
    shutil.copytree(ROOT / "models", tmp_path / "models")
    (tmp_path / "models" / "mynet.py").write_text(code)
    look = (
        "import models; m = models.load('mynet'); print(m.output_shape, 'mynet' in models.names())"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(None, 10) True"


COMMANDS = "|".join(main_group.commands)


def mistake_in(words: list[str]) -> click.UsageError | None:
    """What the command says of its arguments, and does no more than to look at them."""
    command: click.Command = main_group
    while isinstance(command, click.Group):
        if words[:1] and words[0] in command.commands:
            command, words = command.commands[words[0]], words[1:]
        elif isinstance(command, DefaultGroup):
            command = command.commands[command.default]
        else:
            break
    try:
        command.make_context(str(command.name), list(words))
    except click.exceptions.Exit:  # --help
        return None
    except click.UsageError as error:
        return error
    return None


def commands_of(text: str) -> tuple[list[list[str]], list[list[str]]]:
    """The words of each command: whole ones, a line of an example, and those within a sentence."""
    fence = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    start = re.compile(r"(?:\$ )?(?:(?:timeout|salloc) .*?)?(?:\.venv/bin/)?runtest( .*|$)")
    lines = [line for block in fence.findall(text) for line in block.splitlines()]
    commands = [found[1] for line in lines if (found := start.match(line))]
    # What follows `&` is the shell's.
    whole = [shlex.split(command.split(" & ")[0], comments=True) for command in commands]
    within = re.findall(
        rf"`(?:[\w./=: -]* )?runtest ((?:-|{COMMANDS}\b)[^`]*)`", fence.sub("", text)
    )
    return whole, [re.sub(r"[][|]", " ", part).split() for part in within]


def test_every_command_in_the_documents_is_one_that_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my_config", "env.sh", "my_bindings.ini"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    seen = 0
    for path in [*DOCS, ROOT / "benchmarks" / "README.md"]:
        whole, within = commands_of(path.read_text())
        for words in whole:
            assert mistake_in(words) is None, f"{path.name}: {words}"
            for config in [word for word in words if word.startswith("configs/")]:
                assert (ROOT / config).is_file(), f"{path.name}: {words}"
        for words in within:
            # The rest of such a command is in the sentence.
            found = mistake_in(words)
            assert not isinstance(found, click.NoSuchOption), f"{path.name}: {words}: {found}"
        seen += len(whole) + len(within)
    assert seen > 100


@pytest.mark.parametrize(
    "line", ["-m resnet --epoch 3", "train --config c.json -b 3", "evaluate --config c.json -n 2"]
)
def test_an_option_of_another_command_is_found_wherever_it_is_written(line: str) -> None:
    (words,), _ = commands_of(f"```\n$ runtest {line}   # so\n```")
    assert isinstance(mistake_in(words), click.NoSuchOption)
    _, (words,) = commands_of(f"or `runtest {line}`: so")
    assert isinstance(mistake_in(words), click.NoSuchOption)


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for path in DOCS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


# What is shorter could be anything.
SHORTEST, MANY = 8, 20
# That nobody sees: a mistake of ours, said to ourselves.
OURS = {"the task has not ended"}
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
PACKAGES = ("launcher", "perftest", "models")


def messages_of_the_page() -> list[str]:
    """Everything in backticks in the first column, but for a command that says it."""
    first = re.findall(r"^\| (`.*?) \| ", PAGE, re.MULTILINE)
    first = [column.replace("(`status`)", "") for column in first]
    return [message for column in first for message in re.findall(r"`([^`]+)`", column)]


def runs_of_words(message: str) -> list[str]:
    """Every run of words in a message; some of its words stand for a host, a file or a number."""
    words = re.split(r"\s+", message)
    return [
        " ".join(words[start:end]).strip("':;,.()")
        for start in range(len(words))
        for end in range(start + 1, len(words) + 1)
    ]


def test_every_message_of_the_troubleshooting_page_is_one_that_the_program_says() -> None:
    texts = literals(ROOT, PACKAGES)
    messages = messages_of_the_page()
    assert len(messages) > 200
    for message in messages:
        assert is_said(message, texts), f"{message!r} is said nowhere"
    assert not is_said("the moon is in the wrong house today", texts)


def is_said(message: str, texts: list[str]) -> bool:
    """Whether some of its words are many, or half of a text in the source."""
    task = re.sub(r"\b(worker|ps) \d+", "\0 \0", message)
    for run in runs_of_words(task):
        if len(run) >= SHORTEST:
            around = [len(text.strip()) for text in texts if run in text]
            if around and (len(run) >= MANY or 2 * len(run) >= min(around)):
                return True
    return False


def test_every_message_that_an_error_or_a_finding_can_have_is_on_the_troubleshooting_page() -> None:
    page = flat(PAGE)
    found = list(messages(ROOT, PACKAGES))
    assert len(found) > 250
    for message in found:
        words = flat(message.words)
        known = len(words) < SHORTEST or words in page or words in OURS
        assert known, f"{message.file}:{message.line}: {words!r}"


def test_every_finding_that_is_not_in_order_says_what_to_do() -> None:
    assert list(findings_without_mend(ROOT)) == []
