"""What publishing a model would upload, or why it would be refused; nothing is uploaded from the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentifactory.bilingual import Sentence
from sentifactory.publishing.hub.publish import PublishOptions, publish_model
from sentifactory.publishing.hub.refusal import PublishRefusedError
from sentifactory.redaction import redact_paths
from sentifactory.system.formats import format_bytes

_OWNER = "your-name"
_STATE_LICENCE = Sentence(
    "publish it in a terminal, where the licence can be stated", "请在终端发布，届时可注明许可证"
)
_TRAIN_AGAIN = Sentence("train the model again in the tab Train", "请在“训练”页重新训练")
_REMOVE = Sentence("ask whoever runs this page to move it out of the model's folder", "请页面管理者将其移出模型文件夹")
# What to do on the page, by the code of a refusal.
REFUSAL_STEPS = {
    "report-missing": Sentence(
        "compare this model with its base model in the tab Compare", "请在“对比”页将该模型与原始模型对比"
    ),
    "report-of-other-task": Sentence("compare it again in the tab Compare", "请在“对比”页重新对比"),
    "not-better": Sentence("train longer, or compare on more reviews", "请训练更久，或用更多评论对比"),
    "leak": Sentence(
        "compare on test reviews that training has never seen, in the tab Compare",
        "请在“对比”页用训练中从未出现过的评论重新对比",
    ),
    "adapter": Sentence(
        "merge it with its base model in a terminal",
        "请先在终端与原始模型合并",
    ),
    "weights-missing": _TRAIN_AGAIN,
    "weights-incomplete": _TRAIN_AGAIN,
    "config-missing": _TRAIN_AGAIN,
    "tokenizer-missing": _TRAIN_AGAIN,
    "export-broken": Sentence(
        "export the model again in a terminal",
        "请在终端重新导出",
    ),
    "file-refused": _REMOVE,
    "secret": Sentence("ask whoever runs this page to remove it, and revoke it", "请页面管理者删除并吊销该密钥"),
    "run-unfinished": Sentence("continue it in the tab Train", "请在“训练”页继续训练"),
    "licence-of-base": _STATE_LICENCE,
    "licence-conflict": _STATE_LICENCE,
    "licence-of-data": _STATE_LICENCE,
    "data-unknown": Sentence("choose a model that was trained with this program", "请选择用本程序训练的模型"),
}


@dataclass(frozen=True, slots=True)
class PublishPreview:
    """The result of a dry run.

    Attributes:
        refusals: reasons not to publish, each with what to do; () where there are none.
        files: name and size of each file that would be uploaded; () with refusals.
        left: names of the files that would not be.
        licence: of the published model.
        card: the model card, Markdown; "" with refusals.
        repo_id: an example of a repository's name.
    """

    refusals: Sequence[tuple[Sentence, Sentence]]
    files: Sequence[tuple[str, str]]
    left: Sequence[str]
    licence: str
    card: str
    repo_id: str


def preview_publication(folder: Path, report_file: Path | None) -> PublishPreview:
    """Return what publishing a checkpoint would upload.

    Args:
        folder: of the checkpoint.
        report_file: the comparison that proves its quality; None where there is none.

    Raises:
        ConfigError: when the checkpoint or the report cannot be read.
    """
    repo_id = f"{_OWNER}/{folder.name}"
    try:
        result = publish_model(PublishOptions(folder, repo_id, report_file=report_file, is_dry_run=True))
    except PublishRefusedError as error:
        shown = [(_redact(one.what), REFUSAL_STEPS[one.code]) for one in error.refusals]
        return PublishPreview(shown, (), (), "", "", repo_id)
    sizes = [(name, format_bytes(size)) for name, size in result["files"].items()]
    left = [name for name in result["stay_behind"] if name not in result["files"]]  # some are written anew
    return PublishPreview((), sizes, left, result["licence"], result["card"], repo_id)


def _redact(sentence: Sentence) -> Sentence:
    return Sentence(redact_paths(sentence.en), redact_paths(sentence.zh))
