"""Named prompts, demonstrations and the check that the thought survives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from still_core.errors import ConfigError, DataError
from still_core.responses.codec import Codec, check_thought_survives, read_codec
from still_core.responses.format import TOKENS, Defect, DefectKind
from still_core.responses.prompts import (
    PROMPTS,
    QUESTION,
    Markup,
    Source,
    completion_request,
    prompt,
    render_demonstration,
    whole_response,
)
from still_core.responses.response import Response
from still_core.responses.tags import classify_tagged, render_tagged
from still_core.verify import extract_final_answer

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What public R1 templates do to assistant turns.
EATING = CHAT.replace("{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}")


class Characters:
    """A tokenizer of single characters over a real Jinja chat template."""

    eos_token = "<|im_end|>"

    def __init__(self, chat_template: str = CHAT) -> None:
        self.chat_template = chat_template

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        from jinja2 import Template

        template = Template(self.chat_template, keep_trailing_newline=True)
        asked = options.get("add_generation_prompt", False)
        return template.render(messages=conversation, add_generation_prompt=asked)


def characters(lost: str = "") -> Codec:
    """One token a character, some of them lost."""
    return Codec(
        encode=lambda text: [ord(c) for c in text if c not in lost],
        decode=lambda ids: "".join(map(chr, ids)),
    )


@dataclass(frozen=True)
class Spoken:
    statement: str = "Add {2} and 2?"
    thought: str = "Two\n\nand two."
    solution: str = "It is \\boxed{4}."


def test_every_prompt_has_one_place_for_the_question_and_its_own_digest() -> None:
    tokenizer = Characters()
    digests = {one.digest(tokenizer) for one in PROMPTS.values()}
    assert len(digests) == len(PROMPTS) == 8
    for name, one in PROMPTS.items():
        assert one.name == name
        assert one.text.count(QUESTION) == 1
        assert "Add {2}" in one.render("Add {2} and 2?", tokenizer)
    assert prompt("still-2").digest(tokenizer) != prompt("still-2").digest(Characters(CHAT + " "))
    bases = prompt("still-3-short")
    assert bases.digest(tokenizer) == bases.digest(Characters(CHAT + " "))


def test_unknown_prompts_and_blank_questions_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown prompt"):
        prompt("still-4")
    with pytest.raises(DataError, match="without a statement"):
        prompt("bare").render("  ", Characters())
    with pytest.raises(ConfigError, match="needs a chat template"):
        prompt("bare").render("2 + 2?", Characters(""))


def test_the_papers_prompt_is_reproduced_to_the_word(shared_data: Path) -> None:
    paper = (shared_data.parent / "papers" / "still-2.txt").read_text(encoding="utf-8")
    start = paper.index("Your role as an assistant")
    end = paper.index("Now, try to solve the following question", start)
    end = paper.index("\n", end)

    def words(text: str) -> list[str]:
        # The print shows code fences as dots, and the copy adds fences of its own.
        return [w for w in re.sub(r"```|^\.\.\.$", " ", text, flags=re.MULTILINE).split() if w]

    ours = prompt("still-2").text.replace(QUESTION, "")
    assert words(ours) == words(paper[start:end])


def test_the_reconstructed_prompt_says_so_and_keeps_what_is_known_of_it() -> None:
    one = prompt("still-2-released")
    assert one.source is Source.RECONSTRUCTION
    assert len(one.text) > len(prompt("still-2").text)
    for known in ("Hmm...", "Wait, let me think about...", "Actually...", "Alternatively..."):
        assert known in one.text
    for misspelt in ("seperated", "analisying", "guidlines", "summaize"):
        assert misspelt in one.text


def test_training_and_rollouts_see_the_same_prompt() -> None:
    tokenizer, asked = Characters(), prompt("still-2")
    made = render_demonstration(asked, Spoken(), tokenizer)
    assert made.prompt_text == asked.render(Spoken().statement, tokenizer)
    assert made.prompt_text.endswith("<|im_start|>assistant\n")
    assert made.completion_text.endswith(f"{TOKENS[3]}{tokenizer.eos_token}")
    body = made.completion_text.removesuffix(tokenizer.eos_token)
    assert asked.read_completion(body) == Response(
        thought="Two\n\nand two.", solution="It is \\boxed{4}."
    )


def test_the_thought_survives_a_template_that_eats_it() -> None:
    made = render_demonstration(prompt("bare"), Spoken(thought="a </think> b"), Characters(EATING))
    assert "a </think> b" in made.completion_text


@pytest.mark.parametrize(("asked", "lost"), [("bare", "\n"), ("bare", "|"), ("still-3-short", "<")])
def test_a_tokenizer_that_loses_newlines_or_marks_is_refused(asked: str, lost: str) -> None:
    check_thought_survives(prompt(asked), characters())
    with pytest.raises(ConfigError, match="does not give the thought back"):
        check_thought_survives(prompt(asked), characters(lost))


def test_a_real_tokenizer_gives_the_thought_back(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    tokenizer.chat_template = CHAT
    tokenizer.add_special_tokens({"additional_special_tokens": list(TOKENS)})
    tokenizer.save_pretrained(tmp_path)
    check_thought_survives(prompt("bare"), read_codec(tmp_path))
    made = render_demonstration(prompt("still-2"), Spoken(), tokenizer)
    ids = tokenizer.encode(made.completion_text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False) == made.completion_text


@pytest.mark.parametrize("name", ["bare", "still-3-short", "still-3-long"])
def test_a_completion_request_is_the_beginning_of_what_is_trained_on(name: str) -> None:
    asked, tokenizer = prompt(name), Characters()
    made = render_demonstration(asked, Spoken(), tokenizer)
    text = completion_request(asked, made.prompt_text, Spoken().thought)
    end = f"{Spoken().solution}\n{asked.markup.marks()[3]}{tokenizer.eos_token}"
    assert text + end == made.prompt_text + made.completion_text


def test_a_thought_that_the_prompt_opened_and_that_was_cut_holds_no_answer() -> None:
    cut = "Two and two, so \\boxed{4}. But wait"
    opened, closed = (prompt(name).digest(Characters()) for name in ("still-3-long", "bare"))
    assert extract_final_answer(whole_response(cut, opened)) is None
    assert whole_response(cut, closed) == cut


def test_the_zero_runs_prompts_open_the_thought_and_ask_for_tags() -> None:
    tokenizer = Characters()
    for name in ("still-3-short", "still-3-long"):
        asked = prompt(name)
        assert asked.markup is Markup.TAGS
        assert asked.render("2 + 2?", tokenizer).endswith("<think>")
        made = render_demonstration(asked, Spoken(), tokenizer)
        body = made.completion_text.removesuffix(tokenizer.eos_token)
        assert asked.read_completion(body) == Response(
            thought="Two\n\nand two.", solution="It is \\boxed{4}."
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", DefectKind.NO_TOKENS),
        ("<think>a", DefectKind.TRUNCATED_THOUGHT),
        ("<think>a</think>", DefectKind.TRUNCATED_BEFORE_SOLUTION),
        ("<think>a</think><answer>4", DefectKind.TRUNCATED_SOLUTION),
        ("<think>a</think>so<answer>4</answer>", DefectKind.TEXT_BETWEEN),
        ("so <think>a</think><answer>4</answer>", DefectKind.TEXT_BEFORE),
        ("<think>a</think><answer>4</answer>.", DefectKind.TEXT_AFTER),
        ("<think>a</think><answer>4</answer><answer>5</answer>", DefectKind.DOUBLED_TOKEN),
        ("<answer>4</answer><think>a</think>", DefectKind.MISORDERED_TOKENS),
        ("<think></think><answer>4</answer>", DefectKind.EMPTY_THOUGHT),
        ("<think>a</think><answer> </answer>", DefectKind.EMPTY_SOLUTION),
        ("a</think><answer>4</answer>", DefectKind.MISSING_TOKEN),
    ],
)
def test_the_tag_format_has_all_its_structural_checks(text: str, expected: DefectKind) -> None:
    found = classify_tagged(text)
    assert isinstance(found, Defect)
    assert found.kind == expected


def test_tagged_text_goes_round() -> None:
    response = Response(thought="a\n\nb", solution="4")
    assert classify_tagged(render_tagged(response)) == response
