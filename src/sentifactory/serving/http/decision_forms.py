"""The forms of typed decisions: vLLM's `/v1/systemone`, and OpenAI's `/v1/decisions`, which vLLM answers since 0.33.

Requests are checked against them, and the OpenAPI document shows them. Fields that do not change an answer (of caches,
priorities and end users) are accepted; fields that the protocols do not have are refused.
"""
# Annotations are not postponed here: pydantic reads them, and they name types of the function.

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

MAX_QUESTIONS = 64  # as vLLM; all of them are answered from one reading of the text


@dataclass(frozen=True, slots=True)
class DecisionForms:
    """Pydantic models of requests and answers.

    Attributes:
        system_one: request to `/v1/systemone`.
        system_one_answer: what it is answered.
        decisions: request to `/v1/decisions`.
        decisions_answer: what it is answered.
    """

    system_one: type[Any]
    system_one_answer: type[Any]
    decisions: type[Any]
    decisions_answer: type[Any]


@cache
def build_forms() -> DecisionForms:
    """Return the forms; they are built once, because they need pydantic."""
    from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictStr

    class Form(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

    word = Annotated[str, AfterValidator(check_unicode)]
    share = Annotated[float, Field(ge=0, le=1)]

    class SystemOneQuestion(Form):
        type: str = Field(description="choice, or score for a model that was taught stars")
        instructions: Any = Field("", description="not read: the options say what is asked")
        criteria: Any = Field(
            None, description="choice: an object with the model's labels as keys; score: the list of its stars"
        )

    class SystemOneRequest(Form):
        model: str | None = None
        state: str = Field(description="the text of one review")
        questions: dict[Annotated[word, Field(min_length=1)], SystemOneQuestion] = Field(
            min_length=1, max_length=MAX_QUESTIONS
        )
        instructions: str | None = Field(None, description="must be empty, as the fields of media")
        images: list[str] | None = None
        audio: list[str] | None = None
        videos: list[str] | None = None
        chat_template_kwargs: dict[str, Any] | None = None
        cache_salt: str | None = None
        priority: int = 0
        request_id: word = ""

    class SystemOneUsage(Form):
        input_tokens: int
        output_tokens: int

    class Diagnostics(Form):
        label_mass: share
        argmax_is_label: bool

    class SystemOneChoice(Form):
        type: Literal["choice"]
        choice: str
        probabilities: dict[str, share]
        confidence: share

    class SystemOneScore(Form):
        type: Literal["score"]
        score: float = Field(ge=0, description="expected level; the first is 0")
        legend: dict[str, str]
        probabilities: dict[str, share]
        confidence: share

    class SystemOneAnswer(Form):
        id: str
        object: Literal["structured_decision"]
        created: int
        model: str
        answers: dict[str, SystemOneChoice | SystemOneScore]
        usage: SystemOneUsage
        diagnostics: dict[str, Diagnostics]

    class InputText(Form):
        type: Literal["input_text"]
        text: str
        prompt_cache_breakpoint: dict[str, Any] | None = None

    class InputMessage(Form):
        role: Literal["user"]
        content: str | list[InputText]
        type: Literal["message"] = "message"

    class Question(Form):
        name: word | None = None
        instructions: str | list[dict[str, Any]] = Field(description="not read: the options say what is asked")

    class Predicate(Question):
        type: Literal["predicate"]

    class Option(Form):
        value: StrictStr | StrictBool
        description: str = ""

    class Choice(Question):
        type: Literal["choice"]
        choices: list[Option] = Field(min_length=2)

    class Level(Form):
        label: str
        description: str = ""

    class Score(Question):
        type: Literal["score"]
        levels: list[Level] = Field(min_length=2)

    class DecisionsRequest(Form):
        model: str
        input: str | list[InputMessage] = Field(description="the text of one review")
        questions: list[Annotated[Predicate | Choice | Score, Field(discriminator="type")]] = Field(
            min_length=1, max_length=MAX_QUESTIONS
        )
        prompt_cache_key: str | None = None
        prompt_cache_options: dict[str, Any] | None = None
        safety_identifier: str | None = None

    class InputDetails(Form):
        cached_tokens: int
        cache_write_tokens: int

    class OutputDetails(Form):
        reasoning_tokens: int

    class DecisionsUsage(Form):
        input_tokens: int
        input_tokens_details: InputDetails
        output_tokens: int
        output_tokens_details: OutputDetails
        total_tokens: int

    class OptionShare(Form):
        value: str
        probability: share

    class ChoiceAnswer(Form):
        type: Literal["choice"]
        name: str | None
        choice: str
        probabilities: list[OptionShare]
        confidence: share

    class LevelShare(Form):
        value: int
        label: str
        probability: share

    class ScoreAnswer(Form):
        type: Literal["score"]
        name: str | None
        score: float = Field(ge=0, description="expected level; the first is 0")
        probabilities: list[LevelShare]
        confidence: share

    class Refusal(Form):
        type: Literal["refusal"] = Field(description="no label reaches the threshold of the service")
        name: str | None

    class DecisionsAnswer(Form):
        model: str
        answers: list[ChoiceAnswer | ScoreAnswer | Refusal]
        usage: DecisionsUsage

    return DecisionForms(SystemOneRequest, SystemOneAnswer, DecisionsRequest, DecisionsAnswer)


def check_unicode(word: str) -> str:
    """Return a word that the answer repeats.

    Raises:
        ValueError: when it holds half a character (a lone surrogate).
    """
    word.encode()  # UnicodeEncodeError is a ValueError
    return word


def describe_form(form: type[Any]) -> dict[str, Any]:
    """Return the JSON schema of a form without references, which would not hold within an OpenAPI document."""
    schema = form.model_json_schema()
    named = schema.pop("$defs", {})

    def fill_in(part: Any) -> Any:
        if isinstance(part, list):
            return [fill_in(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return fill_in(named[part["$ref"].rpartition("/")[2]])
        return {key: fill_in(value) for key, value in part.items() if key != "discriminator"}

    filled: dict[str, Any] = fill_in(schema)
    return filled
