"""Builds the model of an encoder recipe: encoder and head, frozen parts and LoRA adapters."""

from __future__ import annotations

from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.models.classifiers import (
    explain_load_errors,
    find_model_folder,
    load_config,
    refuse_missing_weights,
)
from sentifactory.models.pooled_classifier import MODEL_TYPE, register_pooled_classes
from sentifactory.task.label_names import name_labels
from sentifactory.task.task import Task
from sentifactory.training.encoder.encoder_recipe import EncoderSettings


def build_model(settings: EncoderSettings, task: Task, *, is_on_cpu: bool) -> tuple[Any, Any]:
    """Return tokenizer and model in float32 with its frozen parts; the tokenizer truncates at `cutoff_len`.

    Raises:
        EngineError: when the checkpoint cannot be loaded, or lacks weights of the encoder.
        ConfigError: when it has fewer layers than the recipe trains, or no layers with the names of `lora_target`.
    """
    import torch
    from transformers import AutoTokenizer

    name = settings.model_name_or_path
    folder = find_model_folder(name)
    torch.manual_seed(settings.seed)  # for the new head
    with explain_load_errors(name):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        is_whole = settings.pooling == "standard" or load_config(folder).model_type == MODEL_TYPE
        model = (_load_whole if is_whole else _load_pooled)(folder, settings, task)
    tokenizer.model_max_length = min(tokenizer.model_max_length, settings.cutoff_len)
    if settings.finetuning_type == "lora":
        return tokenizer, add_lora(model, settings)
    freeze_parts(model, settings, is_on_cpu=is_on_cpu)
    return tokenizer, model


def _load_whole(folder: str, settings: EncoderSettings, task: Task) -> Any:
    """Return the architecture's own classifier, or one of our pooled classifiers to be trained further with its head.

    A head for another number of labels is replaced.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    config = load_config(folder, **name_labels(task))
    if settings.pooling != "standard":
        config.pooling, config.head_dropout = settings.pooling, settings.head_dropout
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        trust_remote_code=False,
    )
    refuse_missing_weights(model, report, settings.model_name_or_path)
    return model


def _load_pooled(folder: str, settings: EncoderSettings, task: Task) -> Any:
    """Return the encoder of a checkpoint with a new pooling head."""
    import torch
    from transformers import AutoModel

    pooled_config, pooled_classifier = register_pooled_classes()
    encoder, report = AutoModel.from_pretrained(
        folder,
        config=load_config(folder),
        dtype=torch.float32,
        output_loading_info=True,
        trust_remote_code=False,
    )
    refuse_missing_weights(encoder, report, settings.model_name_or_path)
    config = pooled_config(
        trunk=encoder.config.to_dict(),
        pooling=settings.pooling,
        head_dropout=settings.head_dropout,
        **name_labels(task),
    )
    return pooled_classifier(config, encoder)


def find_layers(encoder: Any) -> Any:
    """Return the encoder's layers, lowest first."""
    from torch import nn

    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda module: sum(weight.numel() for weight in module.parameters()))


def freeze_parts(model: Any, settings: EncoderSettings, *, is_on_cpu: bool) -> None:
    """Freeze the parts that the recipe does not train.

    Raises:
        ConfigError: when the model has fewer layers than the recipe trains.
    """
    encoder = getattr(model, model.base_model_prefix)
    if settings.finetuning_type == "full":
        trains_embeddings = not is_on_cpu if settings.train_embeddings is None else settings.train_embeddings
        encoder.get_input_embeddings().weight.requires_grad_(trains_embeddings)
        return
    encoder.requires_grad_(False)
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None:
        pooler.requires_grad_(True)  # part of the standard head
    if settings.finetuning_type == "last_layers":
        layers = find_layers(encoder)
        if settings.trainable_layers > len(layers):
            raise ConfigError(
                f"trainable_layers is {settings.trainable_layers}, but the model has {len(layers)} layers",
                where=settings.model_name_or_path,
                next_step="lower it, or set finetuning_type: full",
                code="recipe-of-model",
            )
        for layer in layers[-settings.trainable_layers :]:
            layer.requires_grad_(True)


def add_lora(model: Any, settings: EncoderSettings) -> Any:
    """Return the model with low-rank adapters at the named linear layers and a fully trainable head.

    Raises:
        ConfigError: when a name matches no layer.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    targets = [word.strip() for word in settings.lora_target.split(",") if word.strip()]
    if missing := [word for word in targets if word not in names]:
        raise ConfigError(
            f"lora_target: the model has no layer {', '.join(missing)}",
            where=settings.model_name_or_path,
            expected="names of linear layers, such as query,value (BERT, RoBERTa) or query_proj,value_proj (DeBERTa)",
            code="recipe-of-model",
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
    """Return the model with adapters, if any, merged into its weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
