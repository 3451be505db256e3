#!/usr/bin/env python3
"""Times PyTorch on the cases that `fovea bench --json` has written, and writes the same rows.

    fovea bench attention gemm --json own.json
    python3 apps/bench/peers/torch_peers.py own.json -o torch.json
    fovea bench --merge own.json torch.json --markdown benchmarks.md

Attention: the backends of scaled_dot_product_attention (cuDNN, FlashAttention-2, memory-efficient)
on dense cases, and compiled FlexAttention with the same mask on sparse ones (making its block mask
is not counted). gemm and conv: matmul and conv2d. Models: the same block, dense, compiled, called
and as a CUDA graph (torch_blocks.py). Medians of CUDA events after a warm-up, inputs
changed between repeats. A backend that is not there or refuses is skipped with its reason. With
--check-masks nothing is timed and PyTorch is not needed: the masks' shares of kept pairs are
compared with the engine's.
"""

import argparse
import json
import re
import sys
import time

CACHE_COVER = 256 << 20  # bytes: far above any last-level cache


def numbers(text, axes):
    values = [int(part) for part in text.split("x")]
    return values * axes if len(values) == 1 else values


def clamp(x, low, high):
    return max(low, min(x, high)) if isinstance(x, int) else x.clamp(low, high)


class Neighborhood:
    """NATTEN's rule, as backend/patterns/neighborhood.h states it, for whole numbers or tensors."""

    def __init__(self, spec, grid):
        parts = spec.split(":")
        options = dict(part.split("=") for part in parts[2:])
        unknown = set(options) - {"stride"}
        if unknown:
            raise ValueError(f"no mask function here for {', '.join(sorted(unknown))}")
        self.grid = grid
        windows = numbers(parts[1], len(grid))
        self.windows = [length if w == 0 else w for w, length in zip(windows, grid)]
        self.strides = numbers(options.get("stride", "1"), len(grid))

    def __call__(self, q, k):
        kept = True
        for length, window, stride in reversed(list(zip(self.grid, self.windows, self.strides))):
            leader = clamp(q % length // stride * stride + stride // 2, 0, length - 1)
            begin = clamp(leader - window // 2, 0, length - window)
            at = k % length
            kept = (at >= begin) & (at < begin + window) & kept
            q, k = q // length, k // length
        return kept


class Disc:
    """Keys nearer than a radius; text tokens behind the grid see and are seen by all."""

    def __init__(self, spec, grid):
        self.columns, self.radius = grid[1], float(spec.split(":")[1])
        self.image = grid[0] * grid[1]

    def __call__(self, q, k):
        rows, columns = q // self.columns - k // self.columns, q % self.columns - k % self.columns
        near = rows * rows + columns * columns < self.radius * self.radius
        return near | (q >= self.image) | (k >= self.image)


class BlockMask:
    """A mask over blocks that the engine wrote: four blocks a hexadecimal digit."""

    def __init__(self, mask):
        self.block_q, self.block_k = mask["block"]
        self.rows, self.cols = mask["rows"], mask["cols"]
        self.bits = bytearray()
        for digit in mask["bits"]:
            value = int(digit, 16)
            self.bits += bytes((value >> shift) & 1 for shift in (3, 2, 1, 0))
        del self.bits[self.rows * self.cols:]
        self.table = None

    def to(self, torch, device):
        flat = torch.frombuffer(self.bits, dtype=torch.uint8)
        self.table = flat.view(self.rows, self.cols).bool().to(device)

    def __call__(self, q, k):
        row, column = q // self.block_q, k // self.block_k
        if self.table is not None:
            return self.table[row, column]
        return bool(self.bits[row * self.cols + column])


def mask_of(row, masks):
    """The rule of a row's pattern, or ValueError with the reason why there is none."""
    key = f"{row['pattern']} {row['shape']}"
    if key in masks:
        return BlockMask(masks[key])
    kind = row["pattern"].split(":")[0]
    if kind == "neighborhood":
        return Neighborhood(row["pattern"], row["grid"])
    if kind == "disc":
        return Disc(row["pattern"], row["grid"])
    raise ValueError(f"no mask function here for {row['pattern']}")


def sizes(text):
    return [int(part) for part in re.findall(r"\d+", text)]


def attention_sizes(row):
    """(batch, heads, tokens, head_dim)"""
    found = sizes(row["shape"])
    return found if len(found) == 4 else [1] + found


def distinct(rows):
    seen, result = set(), []
    for row in rows:
        key = (row["op"], row["pattern"], row["shape"], row["dtype"])
        if key not in seen:
            seen.add(key)
            result.append(row)
    return result


def check_masks(document, most_tokens):
    """Number of masks whose share of kept pairs is not the engine's."""
    wrong = checked = 0
    for row in distinct(document["rows"]):
        if row["op"] != "attention" or row["pattern"].startswith(("dense", "perturbed")):
            continue
        name = f"{row['pattern']} {row['shape']}"
        tokens = attention_sizes(row)[2]
        if tokens > most_tokens:
            print(f"not checked: {name}: more than {most_tokens} tokens")
            continue
        try:
            mask = mask_of(row, document.get("masks", {}))
        except ValueError as why:
            print(f"not checked: {name}: {why}")
            continue
        kept = sum(bool(mask(q, k)) for q in range(tokens) for k in range(tokens))
        share, expected = kept / tokens / tokens, row["density"]["pairs"]
        same = abs(share - expected) < 1e-9
        print(f"{'same ' if same else 'WRONG'} {name}: keeps {share:.6f}, the engine {expected:.6f}")
        checked += 1
        wrong += not same
    print(f"{checked} masks checked, {wrong} wrong")
    return wrong


class Timer:
    def __init__(self, torch, seconds):
        self.torch, self.seconds = torch, seconds

    def __call__(self, run, sets):
        """Median and interquartile range in ms, and runs; run(i) uses set i of the inputs."""
        torch = self.torch
        # A GPU that was idle has clocked down: as long a warm-up as the engine's.
        start = time.monotonic()
        while time.monotonic() - start < max(self.seconds / 4, 0.3):
            for i in range(max(3, sets)):
                run(i % sets)
            torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run(0)
        end.record()
        torch.cuda.synchronize()
        once = max(begin.elapsed_time(end), 1e-3)
        runs = int(min(max(self.seconds * 1e3 / once, 3), 2000))
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
        for i, (before, after) in enumerate(events):
            before.record()
            run(i % sets)
            after.record()
        torch.cuda.synchronize()
        times = sorted(before.elapsed_time(after) for before, after in events)
        return times[runs // 2], times[3 * runs // 4] - times[runs // 4], runs


class Peers:
    def __init__(self, torch, document, seconds):
        self.torch, self.document, self.rows = torch, document, []
        self.device = torch.cuda.get_device_name()
        self.time = Timer(torch, seconds)

    def inputs(self, row, *shapes):
        """Sets of random tensors that together cover the caches."""
        torch = self.torch
        dtype = torch.float16 if row["dtype"] == "f16" else torch.float32
        size = 2 if row["dtype"] == "f16" else 4
        total = 0
        for shape in shapes:
            count = size
            for extent in shape:
                count *= extent
            total += count
        free = torch.cuda.mem_get_info()[0]
        sets = int(max(1, min(16, -(-CACHE_COVER // total), free // 4 // total)))
        return [[torch.randn(shape, device="cuda", dtype=dtype) for shape in shapes]
                for _ in range(sets)]

    def add(self, row, path, inputs, run, flops):
        """The row of one backend; whatever it throws is the reason to skip it."""
        name = f"{row['op']} {row['pattern']} {row['shape']} {row['dtype']} {path}"
        try:
            ms, spread, runs = self.time(run, len(inputs))
        except Exception as error:  # backends refuse in many ways
            reason = " ".join(str(error).split())[:200]
            print(f"skipped: {name}: {type(error).__name__}: {reason}")
            return None
        print(f"{name}: {ms:.4f} ms, {flops / ms / 1e9:.1f} TFLOP/s")
        sys.stdout.flush()
        self.rows.append({
            "device": self.device, "op": row["op"], "set": row.get("set", ""),
            "pattern": row["pattern"], "shape": row["shape"], "grid": row.get("grid", []),
            "dtype": row["dtype"], "path": path, "ok": True, "ms": ms, "spread_ms": spread,
            "runs": runs, "input_sets": len(inputs), "tflops": flops / ms / 1e9})
        return self.rows[-1]

    def dense(self, row):
        from torch.nn.attention import SDPBackend, sdpa_kernel
        attention = self.torch.nn.functional.scaled_dot_product_attention
        batch, heads, tokens, dim = shape = attention_sizes(row)
        inputs = self.inputs(row, shape, shape, shape)
        backends = (("cudnn", "CUDNN_ATTENTION"), ("flash2", "FLASH_ATTENTION"),
                    ("mem-efficient", "EFFICIENT_ATTENTION"))
        for path, name in backends:
            backend = getattr(SDPBackend, name, None)
            if backend is None:
                print(f"skipped: {path}: this PyTorch has no SDPBackend.{name}")
                continue

            def run(i):
                with sdpa_kernel(backend):
                    attention(*inputs[i])
            self.add(row, path, inputs, run, 4.0 * batch * heads * tokens * tokens * dim)

    def sparse(self, row):
        torch = self.torch
        name = f"{row['pattern']} {row['shape']}"
        try:
            from torch.nn.attention.flex_attention import create_block_mask, flex_attention
            mask = mask_of(row, self.document.get("masks", {}))
        except (ImportError, ValueError) as why:
            print(f"skipped: {name} flex: {why}")
            return
        batch, heads, tokens, dim = shape = attention_sizes(row)
        try:
            if isinstance(mask, BlockMask):
                mask.to(torch, "cuda")
            compiled_mask = torch.compile(create_block_mask)
            block_mask = compiled_mask(lambda b, h, q, k: mask(q, k), None, None, tokens, tokens,
                                       device="cuda")
            compiled = torch.compile(flex_attention, dynamic=False)
        except Exception as error:
            print(f"skipped: {name} flex: {' '.join(str(error).split())[:200]}")
            return
        inputs = self.inputs(row, shape, shape, shape)
        visited = 1 - block_mask.sparsity() / 100
        timed = self.add(row, "flex", inputs,
                         lambda i: compiled(*inputs[i], block_mask=block_mask),
                         4.0 * batch * heads * tokens * tokens * dim * visited)
        if timed:
            timed["density"] = {"blocks": visited, "pairs": row["density"]["pairs"]}

    def gemm(self, row):
        m, k, n = sizes(row["shape"])
        inputs = self.inputs(row, (m, k), (k, n), (n,))
        addmm = self.torch.addmm
        self.add(row, "cublas", inputs, lambda i: addmm(inputs[i][2], inputs[i][0], inputs[i][1]),
                 2.0 * m * k * n)

    def conv(self, row):
        torch = self.torch
        height, width, ci, co, *stride = sizes(row["shape"])
        stride = stride[0] if stride else 1
        inputs = self.inputs(row, (1, ci, height, width), (co, ci, 3, 3), (co,))
        for one in inputs:  # the engine's layout, which the matrix units also want
            one[0] = one[0].to(memory_format=torch.channels_last)
            one[1] = one[1].to(memory_format=torch.channels_last)
        out = -(-height // stride)
        conv2d = torch.nn.functional.conv2d
        self.add(row, "cudnn", inputs, lambda i: conv2d(*inputs[i], stride=stride, padding=1),
                 18.0 * out * out * ci * co)

    def model(self, row):
        """Compiled; once more with the launches recorded, which small blocks wait for."""
        torch = self.torch
        from torch_blocks import case_of  # needs PyTorch
        dtype = torch.float16 if row["dtype"] == "f16" else torch.float32
        flops = row.get("tflops", 0) * row.get("ms", 0) * 1e9
        try:
            cases = [case_of(row["model"], dtype) for _ in range(row.get("input_sets", 1))]
            compiled = torch.compile(cases[0][0], dynamic=False)
        except Exception as error:
            print(f"skipped: {row['shape']}: {' '.join(str(error).split())[:200]}")
            return
        inputs = [arguments for function, arguments in cases]
        with torch.no_grad():
            if not self.add(row, "compiled", inputs, lambda i: compiled(*inputs[i]), flops):
                return
            graphs = []
            try:
                for arguments in inputs:
                    graphs.append(torch.cuda.CUDAGraph())
                    with torch.cuda.graph(graphs[-1]):
                        compiled(*arguments)
            except Exception as error:
                print(f"skipped: {row['shape']} graph: {' '.join(str(error).split())[:200]}")
                return
            self.add(row, "graph", inputs, lambda i: graphs[i].replay(), flops)


def run_peers(document, seconds, output):
    try:
        import torch
    except ImportError:
        sys.exit("torch_peers: error: PyTorch is not installed")
    if not torch.cuda.is_available():
        sys.exit("torch_peers: error: PyTorch sees no CUDA device")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    peers = Peers(torch, document, seconds)
    print(f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, {peers.device}")
    rows = distinct(document["rows"])
    dense = {(row["shape"], row["dtype"]) for row in rows
             if row["op"] == "attention" and row["pattern"] == "dense"}
    for row in rows:
        if row["op"] == "attention" and row["pattern"] != "dense":
            if (row["shape"], row["dtype"]) not in dense:  # what a sparse case must beat
                dense.add((row["shape"], row["dtype"]))
                peers.dense({**row, "pattern": "dense"})
            if row["pattern"].startswith("perturbed"):
                print(f"skipped: {row['pattern']} {row['shape']}: PyTorch has no such attention")
            else:
                peers.sparse(row)
        elif row["op"] == "attention":
            peers.dense(row)
        elif row["op"] in ("gemm", "conv"):
            getattr(peers, row["op"])(row)
        elif row["op"] == "model" and row["pattern"] == "dense":
            torch.compiler.reset()  # one function for several sizes: none counts against the others
            peers.model(row)
        torch.cuda.empty_cache()
    result = {"engine": f"torch {torch.__version__}", "device": peers.device, "rows": peers.rows}
    with open(output, "w") as file:
        json.dump(result, file, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", help="what fovea bench --json wrote")
    parser.add_argument("-o", "--output", default="torch.json")
    parser.add_argument("--seconds", type=float, default=0.5, help="of repeats a row")
    parser.add_argument("--check-masks", action="store_true",
                        help="compare densities with the engine's; needs no PyTorch")
    parser.add_argument("--most-tokens", type=int, default=1024,
                        help="of a mask that --check-masks goes through")
    options = parser.parse_args()
    try:
        with open(options.cases) as file:
            document = json.load(file)
        document["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"torch_peers: error: {options.cases}: expected the output of fovea bench --json: "
                 f"{error}")
    if options.check_masks:
        sys.exit(1 if check_masks(document, options.most_tokens) else 0)
    run_peers(document, options.seconds, options.output)


if __name__ == "__main__":
    main()
