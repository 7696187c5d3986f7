"""Builds the model of an encoder recipe: trunk and head, what of it is trained, and its parts for LoRA."""

from __future__ import annotations

from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.models.classifier_labels import name_labels
from sentifactory.models.classifiers import (
    explain_load_errors,
    find_model_folder,
    load_config,
    refuse_random_trunk,
)
from sentifactory.models.pooled import register_pooled_classes
from sentifactory.task import Task
from sentifactory.training.encoder_recipe import EncoderSettings


def build_model(settings: EncoderSettings, task: Task, *, is_on_cpu: bool) -> tuple[Any, Any]:
    """Return tokenizer and model in float32, with what is not trained frozen; the tokenizer cuts at `cutoff_len`.

    Raises:
        EngineError: when the checkpoint cannot be loaded, or lacks weights of the trunk.
        ConfigError: when it has fewer layers than are to be trained, or no layers of the names that LoRA wants.
    """
    import torch
    from transformers import AutoTokenizer

    name = settings.model_name_or_path
    folder = find_model_folder(name)
    torch.manual_seed(settings.seed)  # of the head
    with explain_load_errors(name):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        load = _load_standard if settings.pooling == "standard" else _load_pooled
        model = load(folder, settings, task)
    tokenizer.model_max_length = min(tokenizer.model_max_length, settings.cutoff_len)
    if settings.finetuning_type == "lora":
        return tokenizer, add_lora(model, settings)
    freeze_parts(model, settings, is_on_cpu=is_on_cpu)
    return tokenizer, model


def _load_standard(folder: str, settings: EncoderSettings, task: Task) -> Any:
    """Return the architecture's own classifier; a head for another number of labels is made anew."""
    import torch
    from transformers import AutoModelForSequenceClassification

    config = load_config(folder, **name_labels(task))
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        trust_remote_code=False,
    )
    refuse_random_trunk(model, report, settings.model_name_or_path)
    return model


def _load_pooled(folder: str, settings: EncoderSettings, task: Task) -> Any:
    """Return the trunk of a checkpoint with a new head of our own."""
    import torch
    from transformers import AutoModel

    pooled_config, pooled_classifier = register_pooled_classes()
    trunk, report = AutoModel.from_pretrained(
        folder,
        config=load_config(folder),
        dtype=torch.float32,
        output_loading_info=True,
        trust_remote_code=False,
    )
    refuse_random_trunk(trunk, report, settings.model_name_or_path)
    config = pooled_config(
        trunk=trunk.config.to_dict(),
        pooling=settings.pooling,
        head_dropout=settings.head_dropout,
        **name_labels(task),
    )
    return pooled_classifier(config, trunk)


def find_layers(trunk: Any) -> Any:
    """Return the list of the trunk's layers, the lowest first."""
    from torch import nn

    lists = [module for module in trunk.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda module: sum(weight.numel() for weight in module.parameters()))


def freeze_parts(model: Any, settings: EncoderSettings, *, is_on_cpu: bool) -> None:
    """Freeze what the recipe does not train.

    Raises:
        ConfigError: when the model has fewer layers than are to be trained.
    """
    trunk = getattr(model, model.base_model_prefix)
    if settings.finetuning_type == "full":
        trains_embeddings = not is_on_cpu if settings.train_embeddings is None else settings.train_embeddings
        trunk.get_input_embeddings().weight.requires_grad_(trains_embeddings)
        return
    trunk.requires_grad_(False)
    pooler = getattr(trunk, "pooler", None)
    if pooler is not None:
        pooler.requires_grad_(True)  # part of the standard head
    if settings.finetuning_type == "last_layers":
        layers = find_layers(trunk)
        if settings.trainable_layers > len(layers):
            raise ConfigError(
                f"trainable_layers is {settings.trainable_layers}, but the model has {len(layers)} layers",
                where=settings.model_name_or_path,
                next_step="lower it, or set finetuning_type: full",
            )
        for layer in layers[-settings.trainable_layers :]:
            layer.requires_grad_(True)


def add_lora(model: Any, settings: EncoderSettings) -> Any:
    """Return the model with low-rank adapters at the named linear layers; the head is trained whole.

    Raises:
        ConfigError: when no layer has such a name.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    targets = [word.strip() for word in settings.lora_target.split(",") if word.strip()]
    if missing := [word for word in targets if word not in names]:
        raise ConfigError(
            f"lora_target: the model has no layer {', '.join(missing)}",
            where=settings.model_name_or_path,
            expected="names of linear layers, such as query,value (BERT, RoBERTa) or query_proj,value_proj (DeBERTa)",
        )
    heads = [word for word in ("classifier", "pre_classifier", "score", "pooler") if word in names]
    return get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=targets,
            modules_to_save=heads,
        ),
    )


def merge_lora(model: Any) -> Any:
    """Return the whole model, with adapters added into its weights where it has any."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
