r"""Named, versioned prompts, rendered through the tokenizer's chat template.

problem statement -> Prompt.render -> prompt text -> (rollouts | SFT) with the same bytes
response -> Prompt.render_completion -> text -> Prompt.read_completion -> response

A prompt's digest covers its name, version, text and the chat template: two rollouts with equal
prompt digests saw the same prompt for the same statement. Sources: STILL-2 section 2.2.2, STILL-3
section 3.1.2 and Table 6; what only the public code states is marked as a reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from still_core.errors import ConfigError, DataError, explain
from still_core.identity import digest
from still_core.responses.format import TOKENS, Defect, classify, render_response
from still_core.responses.response import Response
from still_core.responses.tags import TAGS, classify_tagged, render_tagged

QUESTION = "{question}"
"""Where the statement goes. Replaced literally: statements are full of braces."""


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that prompts need."""

    chat_template: Any
    eos_token: Any

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render messages."""


class Spoken(Protocol):
    """What `render_demonstration` reads: a demonstration, or anything with these three."""

    @property
    def statement(self) -> str:
        """The problem statement."""

    @property
    def thought(self) -> str:
        """The thought."""

    @property
    def solution(self) -> str:
        """The solution."""


class Source(StrEnum):
    """How faithful a prompt's text is."""

    PAPER = "paper"
    RECONSTRUCTION = "reconstruction"
    """Only its features are known; the sentences are this project's."""


class Markup(StrEnum):
    """The format that a prompt asks for."""

    STILL = "still"
    """The four tokens."""
    TAGS = "tags"
    """``<think>`` and ``<answer>``."""

    def marks(self) -> tuple[str, str, str, str]:
        """What begins and ends the thought, begins and ends the solution."""
        return TOKENS if self is Markup.STILL else TAGS


class RenderedDemonstration(NamedTuple):
    """One training text in two parts; the loss sees the second alone."""

    prompt_text: str
    completion_text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One named prompt."""

    name: str
    version: int
    """Raised with every change of the text, so that caches and rollouts tell them apart."""
    text: str
    """The user turn (`chat`) or the whole prompt, with `{question}` once."""
    chat: bool
    """Whether the text is a user turn of the chat template; False for base models."""
    markup: Markup
    source: Source

    def render(self, problem_statement: str, tokenizer: ChatTokenizer) -> str:
        """The full prompt text, generation prompt included; tokenise without special tokens.

        Raises:
            ConfigError: the tokenizer has no chat template.
            DataError: the statement is blank.
        """
        if not problem_statement.strip():
            raise DataError(explain("a problem without a statement can not be asked"))
        asked = self.text.replace(QUESTION, problem_statement, 1)
        if not self.chat:
            return asked
        self.check_template(tokenizer.chat_template)
        turns = [{"role": "user", "content": asked}]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def check_template(self, template: Any) -> None:
        """Refuse a tokenizer's chat template that is empty where this prompt needs one.

        Raises:
            ConfigError: it does.
        """
        if self.chat and not template:
            raise ConfigError(
                explain(
                    f"prompt {self.name!r} needs a chat template and the tokenizer has none",
                    remedy="use an instruct model's tokenizer or the prompt still-3-short",
                )
            )

    def digest(self, tokenizer: ChatTokenizer) -> str:
        """Identity of name, version, text and chat template (16 hex digits)."""
        return self._identity(tokenizer.chat_template if self.chat else None)

    def _identity(self, template: Any) -> str:
        return digest([self.name, self.version, self.text, self.chat, template])

    def opening(self) -> str:
        """The first mark of the response where the prompt ends with it, else nothing."""
        begin = self.markup.marks()[0]
        return begin if self.text.endswith(begin) else ""

    def render_completion(self, response: Response, tokenizer: ChatTokenizer) -> str:
        """What the model is to write after this prompt: the rendered response, end-of-sequence."""
        if not tokenizer.eos_token:
            raise ConfigError(explain("the tokenizer has no end-of-sequence token"))
        return self.render_response(response) + str(tokenizer.eos_token)

    def render_response(self, response: Response) -> str:
        """The response in this prompt's markup, without what the prompt holds of it already."""
        render = render_response if self.markup is Markup.STILL else render_tagged
        return render(response).removeprefix(self.opening())

    def read_completion(self, text: str) -> Response | Defect:
        """Read what the model wrote after this prompt, strictly; the inverse of `render_response`.

        Args:
            text: the completion, end-of-sequence token removed.
        """
        if self.markup is Markup.STILL:
            return classify(text)
        return classify_tagged(text, opened=bool(self.opening()))


def prompt(name: str) -> Prompt:
    """The prompt of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROMPTS:
        raise ConfigError(explain("unknown prompt", got=name, expected=", ".join(sorted(PROMPTS))))
    return PROMPTS[name]


def render_demonstration(
    asked: Prompt, demonstration: Spoken, tokenizer: ChatTokenizer
) -> RenderedDemonstration:
    """The two parts of one training text.

    The response never goes through the chat template: several public templates delete the thought
    from assistant turns. `prompt_text` is byte for byte what rollouts send.
    """
    response = Response(thought=demonstration.thought, solution=demonstration.solution)
    return RenderedDemonstration(
        prompt_text=asked.render(demonstration.statement, tokenizer),
        completion_text=asked.render_completion(response, tokenizer),
    )


def completion_request(asked: Prompt, prompt_text: str, thought: str) -> str:
    """The prompt for solution completion: the question, the given thought, an opened solution.

    A fine-tuned model goes on from here and closes the solution (STILL-2 section 2.2.1: responses
    in QwQ style have no solution of their own).
    """
    begin, end, solution, _ = asked.markup.marks()
    between = "\n\n" if asked.markup is Markup.STILL else "\n"
    opened = f"{begin}\n{thought}\n{end}{between}{solution}\n".removeprefix(asked.opening())
    return f"{prompt_text}{opened}"


def whole_response(text: str, prompt_digest: str) -> str:
    """What the model wrote, with the mark that its prompt ends with: what a verifier reads.

    Without the mark a thought that was cut looks like a bare answer.

    Args:
        text: the completion.
        prompt_digest: of a prompt of any kind; one that is not known here opens no response.
    """
    return _OPENINGS.get(prompt_digest, "") + text


_STILL_2 = """\
Your role as an assistant involves thoroughly exploring questions through a systematic long \
thinking process before providing the final precise and accurate solutions. This requires \
engaging in a comprehensive cycle of analysis, summarizing, exploration, reassessment, \
reflection, backtracing, and iteration to develop well-considered thinking process.

Please structure your response into two main sections: Thought and Solution.

In the Thought section, detail your reasoning process using the specified format:

```
<|begin_of_thought|>
{thought with steps separated with "\\n\\n"}
<|end_of_thought|>
```

Each step should include detailed considerations such as analysing questions, summarizing \
relevant findings, brainstorming new ideas, verifying the accuracy of the current steps, \
refining any errors, and revisiting previous steps.

In the Solution section, based on various attempts, explorations, and reflections from the \
Thought section, systematically present the final solution that you deem correct. The solution \
should remain a logical, accurate, concise expression style and detail necessary step needed to \
reach the conclusion, formatted as follows:

```
<|begin_of_solution|>
{final formatted, precise, and clear solution}
<|end_of_solution|>
```

Now, try to solve the following question through the above guidelines:
{question}"""

_STILL_2_RELEASED = """\
You explore a question through a long, systematic thinking process before you give a precise and \
accurate solution: analisying, summarizing, exploring, reassessing, reflecting, backtracing and \
iterating until the thought is well considered.

Structure your response into two main sections: Thought and Solution.

In the Thought section, write your reasoning down with steps seperated by "\\n\\n", in this \
format:

```
<|begin_of_thought|>
{thought with steps seperated with "\\n\\n"}
<|end_of_thought|>
```

Each step analyses the question, summaizes what was found, brainstorms new ideas, verifies the \
current steps, refines errors or revisits earlier steps. Think in casual, genuine phrases, such \
as: "Hmm...", "This is interesting because...", "Wait, let me think about...", "Actually...", \
"Now that I look at it...", "This reminds me of...", "I wonder if...", "But then again...", \
"Let's see if...", "Alternatively...", "Let me double check...", so that the stream of thought \
stays natural and coherent.

In the Solution section, present the final solution that you deem correct on the grounds of the \
Thought section: logical, accurate and concise, with the steps needed to reach the conclusion, \
in this format:

```
<|begin_of_solution|>
{final formatted, precise, and clear solution}
<|end_of_solution|>
```

Now, try to solve the following question through the above guidlines:
{question}"""

_STILL_3_SHORT = """\
A conversation between User and Assistant. The user asks a question, and the Assistant solves \
it. The assistant first thinks about the reasoning process in the mind and then provides the \
user with the answer. The reasoning process and answer are enclosed within <think> </think> and \
<answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> \
answer here </answer>.

The assistant shows the reasoning process in <think> </think> tags, and returns the final answer \
in <answer> </answer> tags, for example <answer> \\frac{1}{2} </answer>.

User: {question}

Assistant:

<think>"""

_STILL_3_LONG = """\
A conversation between User and Assistant. The User asks a question, and the Assistant solves \
it. The Assistant first engages in an internal reasoning process, akin to a stream of \
consciousness, before providing the User with the answer. The reasoning process and answer are \
enclosed within '<think></think>' and '<answer></answer>' tags, respectively. For example:

```
<think>
reasoning process here
</think>
<answer>
answer here
</answer>
```

The reasoning process includes detailed considerations such as analyzing questions, summarizing \
relevant findings, brainstorming new ideas, verifying the accuracy of current steps, refining \
any errors, and revisiting previous steps. During this process, the Assistant uses casual, \
genuine phrases such as: "Hmm", "Wait", "Alternatively", "double check", "I wonder...", "But", \
"rethink", etc., to make the reasoning process coherent, clear, and logically sound, effectively \
simulating human cognitive processes.

The Assistant shows the reasoning process within '<think></think>' tags, and ONLY return the \
FINAL ANSWER within '<answer></answer>' tags. For example: '<answer> \\frac{1}{2} </answer>'.

User: {question}

Assistant:

<think>"""

_TOOL = """\
Solve the question with the help of a Python interpreter. While you think, write a short program \
that runs by itself whenever a calculation or a check is worth it, in this form:

```python
{a minimal program that prints every variable you want to see}
```

Its printed text comes back in this form, and the thought goes on after it:

```output
{what the program printed}
```

Rules: state what you expect before you run a program; print the variables you need; compare the \
printed text with what you expected; where they differ, find out why before you go on. Write the \
final answer in \\boxed{}.

Question: {question}"""

_TOOL_SYNTHESIS = """\
{question}

Think inside <think> and </think>. Inside the thought you may run Python: write the code in a \
block fenced with ```python and ```; what it prints follows in a block fenced with ```output and \
```. All code and all outputs belong inside the thought. Give the final answer after </think>, \
in \\boxed{}."""


def _make(name: str, text: str, source: Source, **options: Any) -> Prompt:
    settings: dict[str, Any] = {"version": 1, "chat": True, "markup": Markup.STILL, **options}
    return Prompt(name=name, text=text, source=source, **settings)


_BOXED = "\nPlease reason step by step, and put your final answer within \\boxed{}."
_TAGGED: dict[str, Any] = {"chat": False, "markup": Markup.TAGS}

PROMPTS: Mapping[str, Prompt] = MappingProxyType(
    {
        p.name: p
        for p in (
            # STILL-2 section 2.2.2; the lines of dots in the paper's print are code fences.
            _make("still-2", _STILL_2, Source.PAPER),
            # Longer, with casual phrases and four misspellings.
            _make("still-2-released", _STILL_2_RELEASED, Source.RECONSTRUCTION),
            # STILL-3 section 3.1.2; the example answer is \frac{1}{2} in the public code.
            _make("still-3-short", _STILL_3_SHORT, Source.PAPER, **_TAGGED),
            # STILL-3 section 3.1.2; better from 7B on, worse at 1.5B.
            _make("still-3-long", _STILL_3_LONG, Source.PAPER, **_TAGGED),
            # The chat template alone: STILL-3's 1.5B run, miniature.
            _make("bare", QUESTION, Source.PAPER),
            # STILL-3 Table 6: at test time alone it costs the 1.5B model six points.
            _make("bare-step-by-step", QUESTION + _BOXED, Source.PAPER),
            # Rules of the tool runs' SFT and evaluation prompt.
            _make("tool", _TOOL, Source.RECONSTRUCTION),
            # The synthesis route: code and outputs inside the thought.
            _make("tool-synthesis", _TOOL_SYNTHESIS, Source.RECONSTRUCTION),
        )
    }
)
"""Every prompt by name."""

_OPENINGS = {p._identity(None): p.opening() for p in PROMPTS.values() if not p.chat}
"""What the response begins with, by the digest of a prompt without chat template."""
