"""What the page says about each error of the other packages, by its code: in Chinese, and what to do on the page.

Each code that its users can meet is here (a test looks for all of them); the English sentence is the error's own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorWords:
    """What the page says about an error.

    Attributes:
        zh: what is wrong.
        next_en: what to do on the page.
        next_zh: likewise.
    """

    zh: str
    next_en: str
    next_zh: str


_SAVE_AS_CSV = (
    "Save the reviews as CSV in UTF-8, and upload that file.",
    "请将评论另存为 UTF-8 编码的 CSV 文件后重新上传。",
)
_CHOOSE_COLUMN = ("Choose the columns of the text and of the label.", "请在页面上选择文本列和标签列。")
_CHOOSE_TASK = (
    "Choose a task that has the labels of the file, or a new task with them.",
    "请选择包含这些标签的任务，或用文件中的标签新建任务。",
)
_THRESHOLD = (
    "Choose a star threshold between the bad and the good ratings, or a task that has these numbers as labels.",
    "请填写介于差评与好评之间的星级阈值，或选择以这些数字为标签的任务。",
)
_ENCODING = ("Choose another encoding, or save the file as UTF-8.", "请选择其他编码，或将文件另存为 UTF-8 编码。")
_MORE_REVIEWS = ("Upload a file with more reviews of this label.", "请上传该标签评论更多的文件。")
_OTHER_MODEL = ("Choose models and data of one task.", "请选择同一任务的模型和数据。")

_TERMINAL = (
    "Whoever runs this page finds the details in its terminal.",
    "详情见页面所在机器的终端，请联系页面管理者。",
)
_ASK = ("Ask whoever runs this page.", "请联系页面管理者。")
_OTHER = ("Choose another model.", "请选择其他模型。")
_RECIPE = ("Choose another recipe.", "请选择其他配方。")
_PREPARE = ("Upload the file again and prepare it.", "请重新上传文件并准备数据。")
_SERVER = ("Ask whoever runs this page to check the server of the model.", "请页面管理者检查模型服务。")
_WEIGHTS = ("Train or copy the model again, or choose another one.", "请重新训练或复制该模型，或选择其他模型。")
_INSTALL = ("Ask whoever runs this page to install it.", "请页面管理者安装。")
_PLACE = ("Ask whoever runs this page to check the folder that it writes to.", "请页面管理者检查页面的工作文件夹。")
_CHANGE = ("Change the choice.", "请修改选项。")

ERROR_WORDS: dict[str, ErrorWords] = {
    "file-gone": ErrorWords("文件不存在", "Choose the file again.", "请重新选择文件。"),
    "file-empty": ErrorWords(
        "文件中没有评论", "Upload a file with a header and reviews.", "请上传含表头和评论的文件。"
    ),
    "file-header": ErrorWords(
        "表头无法读取", "Give each column a name in the first line.", "请在第一行写明每一列的列名。"
    ),
    "file-unreadable": ErrorWords("文件无法读取", "Choose the file again.", "请重新选择文件。"),
    "file-kind": ErrorWords("不支持这种文件", *_SAVE_AS_CSV),
    "file-broken": ErrorWords("文件已损坏，或内容与后缀不符", *_SAVE_AS_CSV),
    "file-compressed": ErrorWords("文件是 gzip 压缩包", "Unpack it first.", "请先解压。"),
    "file-markup": ErrorWords("文件实际上是网页", *_SAVE_AS_CSV),
    "file-json": ErrorWords("JSON 格式有误", *_SAVE_AS_CSV),
    "file-too-large": ErrorWords("文件过大", "Split the file, or save it as CSV.", "请拆分文件，或另存为 CSV。"),
    "workbook-old": ErrorWords(
        "这是旧版（.xls）或加密的工作簿", "Save it as .xlsx without a password.", "请另存为不加密的 .xlsx 文件。"
    ),
    "workbook-sheets": ErrorWords(
        "工作簿中有多个含数据的工作表",
        "Leave one sheet in it, or save that as CSV.",
        "请只保留一个工作表，或将其另存为 CSV。",
    ),
    "package-missing": ErrorWords("本机未安装读取此类文件所需的软件包", *_SAVE_AS_CSV),
    "encoding-wrong": ErrorWords("文件并非所选编码", *_ENCODING),
    "encoding-unknown": ErrorWords("没有这种编码", *_ENCODING),
    "encoding-undetected": ErrorWords("无法识别文件的编码", *_ENCODING),
    "encoding-mixed": ErrorWords("文件混用了两种编码", "Save it again in one encoding.", "请统一为一种编码后另存。"),
    "column-missing": ErrorWords("找不到所需的列", *_CHOOSE_COLUMN),
    "column-ambiguous": ErrorWords("有多列都可能是所需的列", *_CHOOSE_COLUMN),
    "rows-broken": ErrorWords("文件中有无法读取的行", "Correct these lines in the file.", "请在文件中更正这些行。"),
    "labels-missing": ErrorWords("大部分评论没有标签", *_CHOOSE_COLUMN),
    "label-unknown": ErrorWords(
        "有的行的标签不属于该任务",
        "Correct the labels of these rows, or choose a task that has them.",
        "请更正这些行的标签，或选择包含这些标签的任务。",
    ),
    "labels-unknown": ErrorWords("文件中有该任务没有的标签", *_CHOOSE_TASK),
    "labels-minus-one": ErrorWords("标签列中有 -1，含义不明确", *_CHOOSE_TASK),
    "stars-threshold": ErrorWords("星级阈值不在评分范围内", *_THRESHOLD),
    "stars-threshold-missing": ErrorWords("标签列是评分", *_THRESHOLD),
    "stars-or-labels": ErrorWords("无法判断标签列中的数字是评分还是标签", *_THRESHOLD),
    "stars-task": ErrorWords("该任务没有正面和负面标签，不能由评分换算", *_CHOOSE_TASK),
    "stars-none": ErrorWords("标签列不是评分", "Leave the star threshold empty.", "请将星级阈值留空。"),
    "split-near-duplicates": ErrorWords(
        "近似重复的评论过多，无法划分数据",
        "Upload reviews that are not variants of each other.",
        "请上传彼此不雷同的评论。",
    ),
    "split-too-few": ErrorWords("某个标签的评论太少，无法划分训练、验证和测试集", *_MORE_REVIEWS),
    "leak": ErrorWords(
        "测试评论出现在训练数据中，结果将不可信",
        "Choose test reviews that training has never seen.",
        "请选择训练中从未出现过的测试评论。",
    ),
    "task-conflict": ErrorWords("所选模型的任务不同", *_OTHER_MODEL),
    "task-of-reviews": ErrorWords("评论的标签与模型的任务不符", *_OTHER_MODEL),
    "task-unknown": ErrorWords("没有这个任务", *_CHOOSE_TASK),
    "task-invalid": ErrorWords("这些标签不能组成任务", *_CHOOSE_TASK),
    "model-labels": ErrorWords("模型的标签与任务不符", *_OTHER_MODEL),
    "model-task-unreadable": ErrorWords("模型的任务文件无法读取", "Choose another model.", "请选择其他模型。"),
    "model-task-version": ErrorWords("当前版本无法读取该模型的任务文件", "Choose another model.", "请选择其他模型。"),
    "model-task-changed": ErrorWords("模型的任务文件在训练后被改动过", "Choose another model.", "请选择其他模型。"),
    "manifest-task-unknown": ErrorWords("数据集的任务已无法还原", "Upload its file again.", "请重新上传原始文件。"),
    "option-value": ErrorWords("该选项的取值无效", *_CHANGE),
    "option-missing": ErrorWords("缺少必要的选项", *_CHANGE),
    "texts": ErrorWords("评论为空，或含有无效字符", "Correct the reviews.", "请修改评论。"),
    "models-chosen": ErrorWords("模型的选择有误", "Choose two different models.", "请选择两个不同的模型。"),
    "name-invalid": ErrorWords(
        "该名称不能使用", "Give the file or the model another name.", "请更换文件名或模型名称。"
    ),
    "name-taken": ErrorWords("该名称已被占用", "Give the file another name.", "请更换文件名。"),
    "data-missing": ErrorWords("找不到该数据集", "Refresh the list and choose another one.", "请刷新列表后重新选择。"),
    "data-index": ErrorWords("数据集的索引文件 dataset_info.json 已损坏", *_PLACE),
    "manifest-broken": ErrorWords("数据集的清单文件已损坏", *_PREPARE),
    "reviews-all-seen": ErrorWords(
        "所有测试评论都在训练中出现过", "Choose other test reviews.", "请选择其他测试评论。"
    ),
    "labels-too-few": ErrorWords(
        "标签种类或某个标签的评论太少", "Upload reviews of every label.", "请上传包含每种标签的评论。"
    ),
    "split-choice": ErrorWords("数据划分的选项不能同时使用", *_CHANGE),
    "split-size": ErrorWords("评论数量不足以按此划分", "Upload more reviews.", "请上传更多评论。"),
    "test-file-twice": ErrorWords("同一个测试文件被选了两次", *_CHANGE),
    "tokenizer": ErrorWords("模型的分词器缺失或无法读取", *_WEIGHTS),
    "package-needed": ErrorWords("本机缺少所需的软件包", *_INSTALL),
    "vllm-missing": ErrorWords("本机未安装 vLLM，或其环境无法使用", *_INSTALL),
    "model-missing": ErrorWords(
        "找不到该模型的文件夹", "Refresh the list and choose another one.", "请刷新列表后重新选择。"
    ),
    "model-adapter": ErrorWords(
        "这是 LoRA 适配器，不是完整的模型",
        "Ask whoever runs this page to merge it with its base model.",
        "请页面管理者将其与原始模型合并。",
    ),
    "model-incomplete": ErrorWords("模型的文件不完整", *_WEIGHTS),
    "model-weights-incomplete": ErrorWords("模型的权重不完整", *_WEIGHTS),
    "model-config": ErrorWords("模型的配置文件已损坏", *_WEIGHTS),
    "model-weights": ErrorWords("模型的权重文件不完整或已损坏", *_WEIGHTS),
    "model-no-tokenizer": ErrorWords("模型缺少分词器", *_WEIGHTS),
    "model-unfinished": ErrorWords(
        "该模型的训练尚未完成", "Continue the training, or choose another model.", "请继续训练，或选择其他模型。"
    ),
    "model-weights-unreadable": ErrorWords("模型的权重无法读取", *_WEIGHTS),
    "model-no-safetensors": ErrorWords("模型没有 safetensors 权重", *_OTHER),
    "model-unsafe": ErrorWords(
        "模型中有加载时会执行代码的内容", "Choose a model from a source that you trust.", "请选择来源可靠的模型。"
    ),
    "model-hostile": ErrorWords(
        "模型的配置文件不可信", "Choose a model from a source that you trust.", "请选择来源可靠的模型。"
    ),
    "model-not-decoder": ErrorWords("该模型不是所需类型的语言模型", *_OTHER),
    "model-quantised": ErrorWords("不支持量化过的模型", *_OTHER),
    "model-unloadable": ErrorWords("模型无法加载", *_WEIGHTS),
    "model-unsupported": ErrorWords("不支持这种结构的模型", *_OTHER),
    "model-engine": ErrorWords("该模型不能以此方式运行", *_OTHER),
    "chat-template": ErrorWords("模型的对话模板缺失或无法使用", *_OTHER),
    "answers-alike": ErrorWords("模型的分词器无法区分任务的各个回答", *_OTHER),
    "calibration-unusable": ErrorWords("模型的校准文件无法使用", *_WEIGHTS),
    "calibration-too-few": ErrorWords("验证评论太少，无法校准", "Upload more reviews.", "请上传更多评论。"),
    "few-shot-examples": ErrorWords("可作示例的训练评论不足", "Upload more reviews.", "请上传更多评论。"),
    "prior-no-probabilities": ErrorWords("没有各标签的概率，无法校正类别比例", *_OTHER),
    "stack-unusable": ErrorWords("组合模型的文件无法读取", *_OTHER),
    "stack-version": ErrorWords("当前版本无法读取该组合模型", *_OTHER),
    "stack-task": ErrorWords("组合模型的任务无法使用", *_OTHER),
    "stack-address": ErrorWords("组合模型不能通过服务地址运行", *_OTHER),
    "export-broken": ErrorWords(
        "ONNX 导出的文件缺失、被改动或无法加载",
        "Ask whoever runs this page to export it again.",
        "请页面管理者重新导出。",
    ),
    "memory": ErrorWords(
        "内存或显存不足",
        "Choose a smaller model or fewer reviews, or wait until other programs have ended.",
        "请选择更小的模型或更少的评论，或等待其他程序结束。",
    ),
    "engine-ended": ErrorWords(
        "运行模型的进程意外终止，可能是内存不足", "Try again, or choose a smaller model.", "请重试，或选择更小的模型。"
    ),
    "engine-answers": ErrorWords("模型返回的回答条数不对", *_TERMINAL),
    "engine-untrained": ErrorWords("TF-IDF 尚未训练", *_TERMINAL),
    "server-start": ErrorWords("模型服务无法启动", *_SERVER),
    "server-address": ErrorWords("模型服务的地址有误", *_SERVER),
    "server-unreachable": ErrorWords("无法连接模型服务，或连接中断", *_SERVER),
    "server-access": ErrorWords("模型服务拒绝访问", *_SERVER),
    "server-model": ErrorWords("模型服务上没有该模型", *_SERVER),
    "server-mode": ErrorWords("模型服务不支持这种提问方式", *_SERVER),
    "server-answer": ErrorWords("模型服务的回复无法识别", *_SERVER),
    "server-refused": ErrorWords("模型服务拒绝了请求", *_SERVER),
    "server-ended": ErrorWords("模型服务已意外终止", *_SERVER),
    "server-loading": ErrorWords("模型服务仍在加载模型", "Wait a moment, and try again.", "请稍等片刻后重试。"),
    "review-refused": ErrorWords(
        "模型服务拒绝了一条评论", "Remove very long reviews, and try again.", "请删除过长的评论后重试。"
    ),
    "answer-form": ErrorWords(
        "模型对一条评论的回答不是所教的格式",
        "Ask whoever runs this page to serve the model by llama.cpp or vLLM.",
        "请页面管理者改用 llama.cpp 或 vLLM 提供模型。",
    ),
    "report-invalid": ErrorWords(
        "该评测报告的格式不是当前版本的", "Compare again in the tab Compare.", "请在“对比”页重新对比。"
    ),
    "card-metadata": ErrorWords("模型卡片无法生成", *_TERMINAL),
    "repository-name": ErrorWords("仓库名称无效", *_TERMINAL),
    "publish-refused": ErrorWords(
        "该模型暂不能发布", "Try the dry run in the tab Models.", "请在“模型”页查看发布预演。"
    ),
    "disk-full": ErrorWords(
        "磁盘空间不足", "Ask whoever runs this page to free some space, then continue.", "请页面管理者清理磁盘后继续。"
    ),
    "output-unwritable": ErrorWords("没有写入权限，或无法写入文件", *_PLACE),
    "output-unusable": ErrorWords("输出路径无法使用", *_PLACE),
    "output-foreign": ErrorWords("输出位置已有其他文件，为免覆盖而停止", *_PLACE),
    "output-is-input": ErrorWords("输出会覆盖输入文件", *_PLACE),
    "output-name": ErrorWords("输出文件名无效", *_PLACE),
    "no-locks": ErrorWords("所在文件系统不支持文件锁", *_PLACE),
    "device": ErrorWords("所选的计算设备不可用", *_ASK),
    "proxy": ErrorWords("代理设置有误", *_ASK),
    "hub-address": ErrorWords("模型下载站的地址有误", *_ASK),
    "yaml": ErrorWords("YAML 文件有误", *_ASK),
    "task-file": ErrorWords("任务文件无法读取", "Choose another task.", "请选择其他任务。"),
    "task-file-yaml": ErrorWords("任务文件不是有效的 YAML", "Choose another task.", "请选择其他任务。"),
    "recipe-invalid": ErrorWords("配方有误，无法使用", *_RECIPE),
    "recipe-of-model": ErrorWords("配方与模型的结构不符", *_RECIPE),
    "task-of-data": ErrorWords(
        "训练数据的任务与所选任务不符", "Choose a recipe and a data set of one task.", "请选择同一任务的配方和数据集。"
    ),
    "template-differs": ErrorWords("配方的对话模板与模型自带的不一致", *_RECIPE),
    "samples-cut": ErrorWords(
        "配方的长度上限太小，评论或回答会被截断",
        "Choose a recipe with a larger cutoff_len, or shorter reviews.",
        "请选择 cutoff_len 更大的配方，或使用更短的评论。",
    ),
    "class-weights": ErrorWords("数据中的类别权重不能用于该配方", *_RECIPE),
    "answers-of-task": ErrorWords(
        "训练数据的回答与任务的标签不符", "Prepare the data again for this task.", "请按该任务重新准备数据。"
    ),
    "answers-many": ErrorWords(
        "训练数据中不同的回答过多", "Prepare the data again with fewer labels.", "请减少标签后重新准备数据。"
    ),
    "training-start": ErrorWords(
        "训练未能启动",
        "Choose another recipe; the last lines of the log say more.",
        "请选择其他配方；原因见下方的日志末尾。",
    ),
    "training-diverged": ErrorWords(
        "训练的损失值异常（NaN 或无穷大），已停止",
        "Choose a recipe with a lower learning rate.",
        "请选择学习率更低的配方。",
    ),
    "checkpoint-other-run": ErrorWords(
        "文件夹中的检查点属于另一次训练", "Start a training with another name.", "请换一个模型名称重新训练。"
    ),
    "checkpoint-other-processes": ErrorWords(
        "中断的训练用的进程数与现在不同，无法继续",
        "Start a training with another name, or use as many GPUs as before.",
        "请换一个模型名称重新训练，或使用与之前相同数量的 GPU。",
    ),
    "training-runs": ErrorWords(
        "已有训练在写入该文件夹", "Wait until it has finished, or stop it.", "请等待其结束，或先停止它。"
    ),
    "defect": ErrorWords("程序内部错误", *_TERMINAL),
}
