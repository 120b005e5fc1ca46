"""What the documents promise is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import RUNTEST
from messages import findings_without_mend, flat, literals, messages

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


def options_of_the_command() -> set[str]:
    """Every option that the help of any command names."""
    names = re.findall(r"^  (\w+)  ", help_of(), re.MULTILINE)
    text = "".join(help_of(name) for name in names) + help_of()
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text))


def help_of(*command: str) -> str:
    done = subprocess.run([RUNTEST, *command, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def test_every_option_in_the_documents_exists() -> None:
    known = options_of_the_command()
    for path in [ROOT / "README.md", ROOT / "docs" / "troubleshooting.md"]:
        for line in path.read_text().splitlines():
            for command in re.findall(r"runtest ([^`#]*)", line) if "runtest -" in line else []:
                used = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", command))
                assert used <= known, f"{path.name}: {line}"


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
