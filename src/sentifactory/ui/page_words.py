"""The texts of the page in English and Chinese, examples and fonts."""

from __future__ import annotations

EXAMPLES = (
    "这家饭店真贴心，知道我吃不饱还特地在里面放蟑螂",
    "房间干净，服务热情，下次还来",
    "书的内容太差了，再也不买\n屏幕很漂亮，值得购买",
)
FONTS = ("system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")
LANGUAGES = {"en": "English", "zh": "中文"}
DEFAULT_LANGUAGE = "en"

WORDS: dict[str, tuple[str, str]] = {
    "predict": ("Predict", "预测"),
    "train": ("Train", "训练"),
    "compare": ("Compare", "对比"),
    "models": ("Models", "模型"),
    "texts": ("Reviews, one per line", "评论（每行一条）"),
    "texts_hint": ("Type or paste reviews here", "在此输入或粘贴评论"),
    "base_model": ("Base model", "原始模型"),
    "tuned_model": ("Tuned model", "微调模型"),
    "ask": ("Ask both models", "开始预测"),
    "examples": ("Examples", "示例"),
    "file": ("Reviews with labels (CSV, JSONL, Excel, ...)", "带标签的评论（CSV、JSONL、Excel 等）"),
    "check_data": ("1. Check and prepare the data", "1. 检查并准备数据"),
    "data": ("Data set", "数据集"),
    "text_column": ("Column of the reviews", "评论列"),
    "label_column": ("Column of the labels", "标签列"),
    "same_column": (
        "The reviews and the labels are the same column. Choose another column for one of them.",
        "评论列与标签列是同一列，请为其中之一选择另一列。",
    ),
    "no_threshold": (
        "The labels are stars, and the star threshold is empty. Type the number of stars above which a review is "
        "positive.",
        "标签是星级评分，但星级阈值为空。请填写阈值，高于该星级的评论视为正面。",
    ),
    "no_rows": (
        "The file has a header, and no reviews below it. Upload a file with reviews.",
        "文件只有表头，没有评论。请上传含评论的文件。",
    ),
    "no_texts": (
        "The column of the reviews is empty. Choose another column.",
        "评论列是空的，请选择其他列。",
    ),
    "encoding": ("Encoding", "编码"),
    "encoding_auto": ("detect", "自动识别"),
    "task": ("Task", "任务"),
    "new_task": ("New task", "新建任务"),
    "star_threshold": ("Star threshold (above: positive, below: negative)", "星级阈值（高于为正面，低于为负面）"),
    "first_rows": ("First rows", "前几行"),
    "text_mark": ("text", "文本"),
    "label_mark": ("label", "标签"),
    "chat_file": ("Chats, or pairs of question and answer: no columns to choose.", "对话或问答数据，无需选择列。"),
    "labels_found": ("Labels found: ", "文件中的标签："),
    "file_of_other_task": ("The labels do not fit the tuned model's task: ", "标签不适合微调模型的任务："),
    "new_task_prompt": ("Prompt of the new task", "新任务的提示词"),
    "other_tasks": ("Tasks that do not fit, and why", "不适合的任务及原因"),
    "other_models": ("Base models that do not fit, and why", "不适合的原始模型及原因"),
    "other_data": ("Data sets that do not fit, and why", "不适合的数据集及原因"),
    "other_recipes": ("Recipes that do not fit, and why", "不适合的配方及原因"),
    "kind_model": ("model", "模型"),
    "kind_data_set": ("data set", "数据集"),
    "kind_recipe": ("recipe", "配方"),
    "kind_report": ("report", "报告"),
    "no_report": ("This report has been removed. Refresh the list.", "该报告已被删除，请刷新列表。"),
    "no_model": ("No model is chosen. Choose one or two.", "尚未选择模型，请选择一个或两个。"),
    "two_models": ("One model is chosen twice. Choose two different ones.", "两侧是同一个模型，请另选一个。"),
    "negative_number": ("The number of reviews must be 0 or more.", "评测条数不能小于 0。"),
    "too_many_kept": (
        "The limit of kept uploads is reached. Ask whoever runs this page to move older uploads elsewhere.",
        "页面保存的上传文件已达上限，请联系页面管理者移走旧文件。",
    ),
    "recipe": ("Recipe", "训练配方"),
    "model_name": ("Name of the new model (optional)", "新模型名称（选填）"),
    "start": ("2. Start training", "2. 开始训练"),
    "stop": ("Stop", "停止"),
    "resume": ("Continue", "继续训练"),
    "test_file": ("... or a file of labelled test reviews", "……或上传带标签的测试评论"),
    "test_data": ("Test part of a data set", "数据集的测试集"),
    "max_samples": ("Maximum number of reviews (0: all)", "最多评测条数（0 表示全部）"),
    "run_compare": ("Compare", "开始对比"),
    "past_report": ("Earlier reports", "以往的报告"),
    "model": ("Model", "模型"),
    "refresh": ("Refresh", "刷新列表"),
    "unparsed": ("no answer", "无有效回答"),
    "unsure": ("not sure", "置信度不足"),
    "nothing_to_resume": (
        "There is no training to continue. Start one.", "没有可以继续的训练，请先开始一次训练。"
    ),
    "nothing_to_stop": ("No training is running.", "当前没有正在运行的训练。"),
    "training_runs": (
        "A training is already running. Wait until it has finished, or stop it.",
        "已有训练正在运行，请等待其完成，或先停止它。",
    ),
    "state_none": ("No training has been started here yet.", "尚未开始过训练。"),
    "state_running": ("Training", "训练中"),
    "state_finished": ("Finished", "已完成"),
    "state_stopped": ("Stopped", "已停止"),
    "state_failed": ("Failed", "失败"),
    "loss": ("Loss", "损失"),
    "best": ("Best", "最佳"),
    "latest": ("Latest", "最近一次"),
    "time_left": ("Time left", "剩余时间"),
    "no_card": (
        "There is no record of its training: it was not trained with this program.",
        "没有训练记录：并非用本程序训练。",
    ),
    "answers": ("Answers", "回答"),
    "tested": ("Test accuracy", "测试准确率"),
    "took": ("Training took", "训练用时"),
    "size": ("Size on disk", "占用磁盘"),
    "tests": ("Tested in", "评测结果"),
    "not_tested": (
        "It has not been compared with its base model yet: the tab Compare does that.",
        "尚未与原始模型对比，可在“对比”页进行。",
    ),
    "searching": ("Searching for reports on this model", "正在查找该模型的报告"),
    "continued": ("since it was continued", "自上次继续起"),
    "curve": ("Training", "训练过程"),
    "prompt": ("What it is asked (prompt)", "提示词"),
    "open_report": ("Open a report on this model", "打开该模型的报告"),
    "use_model": ("Use it: predict", "用它预测"),
    "compare_model": ("Compare it with its base model", "与原始模型对比"),
    "publish_model": ("Publish: dry run", "发布预演"),
    "checking": ("Searching all files of the model for secrets ...", "正在检查模型的全部文件是否含有密钥……"),
    "publish_title": ("Publishing", "发布"),
    "not_publishable": ("This model cannot be published yet, because:", "该模型暂不能发布，原因如下："),
    "publishable": (
        "This model can be published; nothing has been uploaded. In a terminal, with your own name:",
        "该模型可以发布，目前尚未上传任何文件。请在终端执行（换成自己的用户名）：",
    ),
    "licence": ("Licence", "许可证"),
    "uploaded": ("Would be uploaded", "将上传"),
    "left": ("Would not be", "不上传"),
    "model_page": ("The model card", "模型卡片"),
    "all_values": ("All values", "全部字段"),
    "log": ("Last lines of the log", "日志末尾"),
    "report": ("Report", "报告"),
    "validation": ("Validation", "验证"),
    "no_recipes": (
        "There is no recipe whose model is on this machine. Ask whoever runs this page to download one.",
        "本机没有任何配方所需的模型，请页面管理者下载模型。",
    ),
    "elsewhere": (
        "This page can be used on its own machine only. For a tunnel or a proxy, start it with --tunnel and "
        "a password (contexts/tunnels.md).",
        "本页面只接受本机访问。若要通过隧道或代理访问，请设置密码并加上 --tunnel 启动（见 contexts/tunnels_zh.md）。",
    ),
    "foreign": (
        "Another web site sent this request, and this page accepts only its own. Open its address directly.",
        "该请求来自其他网站；本页面只接受自身发出的请求，请直接打开页面地址。",
    ),
    "no_route": ("There is nothing at this address.", "此地址没有内容。"),
    "no_login": ("Log in first.", "请先登录。"),
    "too_many_logins": (
        "The last attempts to log in from your address failed. Wait a few seconds, then try again.",
        "来自该地址的登录多次失败，请等待几秒后重试。",
    ),
    "login_hint": (
        "After several wrong passwords every further attempt takes some seconds.",
        "密码多次输错后，每次登录尝试都要等待几秒。",
    ),
    "too_large": ("This is too large: a file may have up to 50 MB.", "内容过大：单个文件不得超过 50 MB。"),
    "too_busy": ("The page is busy. Wait a few seconds, then try again.", "页面正忙，请稍等几秒后重试。"),
    "too_many_uploads": (
        "The limit of uploaded files is reached. Files are removed after an hour; try again later.",
        "页面暂存的上传文件已达上限；文件一小时后自动清除，请稍后再试。",
    ),
    "broken_upload": ("The upload is incomplete. Try again.", "上传的文件不完整，请重试。"),
    "no_such_upload": (
        "This file has been removed: uploads are kept for an hour. Choose the file again.",
        "该文件已不在服务器上：上传的文件只保留一小时，请重新选择文件。",
    ),
    "broken_request": ("The page cannot read this request. Load the page again.", "无法读取该请求，请刷新页面。"),
    "failed": (
        "An error occurred on the page's machine; see its terminal. Load the page again.",
        "页面所在机器出现错误，详情见其终端；请刷新页面。",
    ),
}  # fmt: skip


def say(key: str, language: str) -> str:
    """Return a text in one language.

    Example:
        >>> say("train", "zh")
        '训练'
    """
    return WORDS[key][list(LANGUAGES).index(language)]
