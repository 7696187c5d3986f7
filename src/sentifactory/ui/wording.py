"""What the page says, in English and in Chinese."""

from __future__ import annotations

LANGUAGES = {"en": "English", "zh": "中文"}
DEFAULT_LANGUAGE = "en"

WORDS: dict[str, tuple[str, str]] = {
    "predict": ("Predict", "预测"),
    "train": ("Train", "训练"),
    "compare": ("Compare", "对比"),
    "models": ("Models", "模型"),
    "texts": ("Reviews, one a line", "评论（每行一条）"),
    "texts_hint": ("Type or paste reviews here", "在此输入或粘贴评论"),
    "base_model": ("Base model", "原始模型"),
    "tuned_model": ("Tuned model", "微调模型"),
    "ask": ("Ask both models", "开始预测"),
    "examples": ("Examples", "示例"),
    "file": ("Reviews with labels (CSV, JSONL, Excel, ...)", "带标签的评论（CSV、JSONL、Excel 等）"),
    "check_data": ("1. Check and prepare the data", "1. 检查并准备数据"),
    "data": ("Data set", "数据集"),
    "recipe": ("Recipe", "训练配方"),
    "model_name": ("Name of the new model (may stay empty)", "新模型名称（可留空）"),
    "start": ("2. Start training", "2. 开始训练"),
    "stop": ("Stop", "停止"),
    "resume": ("Go on", "继续"),
    "test_file": ("Test reviews with labels, or choose a data set", "带标签的测试评论，或在右侧选择数据集"),
    "test_data": ("... or the test part of a data set", "……或某数据集的测试部分"),
    "max_samples": ("Most reviews to ask (0: all)", "最多评测条数（0 表示全部）"),
    "run_compare": ("Compare", "开始对比"),
    "past_report": ("Earlier reports", "以往的报告"),
    "model": ("Model", "模型"),
    "refresh": ("Look again", "刷新列表"),
    "unparsed": ("no answer", "无有效回答"),
    "unsure": ("not sure", "没有把握"),
    "state_none": ("No training has been started here yet.", "尚未开始过训练。"),
    "state_running": ("Training", "训练中"),
    "state_finished": ("Finished", "已完成"),
    "state_stopped": ("Stopped", "已停止"),
    "state_failed": ("Failed", "失败"),
    "step": ("step", "步"),
    "beginning": ("loading model and data", "正在加载模型与数据"),
    "no_card": ("This model has no run card: it was not trained here.", "该模型没有训练记录：不是在此训练的。"),
    "all_values": ("Everything on the card", "记录全文"),
    "log": ("Last lines of the log", "日志末尾"),
    "report": ("Report", "报告"),
    "validation": ("Validation", "验证"),
    "no_recipes": (
        "There is no recipe whose model is on this machine. `sentifactory model fetch` brings one.",
        "本机没有任何配方所需的模型，可用 sentifactory model fetch 获取。",
    ),
    "elsewhere": (
        "This page answers its own machine only. To reach it through a tunnel or a proxy, start it with --tunnel and "
        "a password (contexts/tunnels.md).",
        "本页面只接受本机访问。若要通过隧道或代理访问，请设置密码并加上 --tunnel 启动（见 contexts/tunnels_zh.md）。",
    ),
    "foreign": (
        "Another web site sent this request; this page answers its own controls only. Open its address directly.",
        "该请求来自其他网站；本页面只接受自身发出的请求，请直接打开页面地址。",
    ),
    "no_route": ("There is nothing at this address.", "此地址没有内容。"),
    "no_login": ("Log in first.", "请先登录。"),
    "too_many_logins": (
        "The last attempts to log in from your address failed. Wait some seconds, then try again.",
        "来自该地址的登录多次失败，请等待几秒后重试。",
    ),
    "login_hint": (
        "After some wrong passwords every further attempt takes some seconds.",
        "密码多次输错后，每次登录尝试都要等待几秒。",
    ),
    "too_large": ("This is too large: a file may have up to 50 MB.", "内容过大：单个文件不得超过 50 MB。"),
    "too_many_uploads": (
        "This page holds as many uploaded files as it has room for. Files are removed after an hour; try again later.",
        "页面暂存的上传文件已达上限；文件一小时后自动清除，请稍后再试。",
    ),
    "broken_upload": ("The upload did not arrive as one whole file. Try again.", "上传的文件不完整，请重试。"),
    "no_such_upload": (
        "This file is not here any more: uploads are kept for an hour. Choose the file again.",
        "该文件已不在服务器上：上传的文件只保留一小时，请重新选择文件。",
    ),
    "broken_request": ("The page cannot read this request. Load the page again.", "无法读取该请求，请刷新页面。"),
    "failed": (
        "Something failed on the page's machine; its terminal says what. Load the page again.",
        "页面所在机器出现错误，详情见其终端；请刷新页面。",
    ),
}  # fmt: skip


def say(key: str, language: str) -> str:
    """Return a wording in one language.

    Example:
        >>> say("train", "zh")
        '训练'
    """
    return WORDS[key][list(LANGUAGES).index(language)]
