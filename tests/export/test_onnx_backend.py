"""The torch-free backend: devices, threads, processes, and what bad options get."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import clever_hub
from clever_hub.backends.onnx import CONFIG_KEY, OnnxModel, _providers
from clever_hub.backends.variants import Variant
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError, DeviceError, ModelFormatError
from clever_hub.weights import Weights

Exported = Callable[..., Path]


@pytest.fixture
def model(exported: Exported) -> OnnxModel:
    return clever_hub.from_pretrained(exported("test_resnet"), backend="onnx", threads=1)


def test_neither_torch_nor_timm_is_imported(exported: Exported, photos: dict[str, Path]) -> None:
    code = (
        "import sys, clever_hub\n"
        "model = clever_hub.from_pretrained(sys.argv[1], backend='onnx')\n"
        "print(model.encode(sys.argv[2]).full.shape)\n"
        "loaded = {'torch', 'timm', 'transformers', 'safetensors', 'onnx', 'huggingface_hub'}\n"
        "print(sorted(loaded & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(exported("test_resnet")), str(photos["chelsea"])]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout.split("\n")[:2] == ["(1, 96)", "[]"]


def test_an_environment_with_only_the_onnx_extra(
    exported: Exported, photos: dict[str, Path], without_torch: Path
) -> None:
    python = without_torch / "python"
    code = (
        "import importlib.util, sys, clever_hub\n"
        "assert importlib.util.find_spec('torch') is None\n"
        "model = clever_hub.from_pretrained(sys.argv[1], backend='onnx')\n"
        "print(model.encode(sys.argv[2]).full.tolist()[0][:3])\n"
        "print(clever_hub.from_pretrained(sys.argv[1]))\n"
        "try:\n"
        "    clever_hub.from_pretrained(sys.argv[1], backend='torch')\n"
        "except clever_hub.errors.MissingExtraError as error:\n"
        "    print(error)\n"
    )
    folder = exported("test_resnet")
    command = [str(python), "-c", code, str(folder), str(photos["chelsea"])]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    vector, chosen, message = result.stdout.strip().split("\n")
    expected = clever_hub.from_pretrained(folder).encode(photos["chelsea"]).full[0, :3]
    np.testing.assert_allclose(np.array(eval(vector)), expected, atol=1e-4)
    assert "onnx on CPU" in chosen, "without torch the other backend is taken"
    assert 'pip install "clever-hub[torch]"' in message


def test_cuda_that_is_not_there_is_an_error(exported: Exported) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    for device in ("cuda", "cuda:1"):
        with pytest.raises(DeviceError, match="CUDAExecutionProvider was asked for"):
            clever_hub.from_pretrained(exported("test_resnet"), backend="onnx", device=device)
    with pytest.raises(DeviceError, match="TensorrtExecutionProvider"):
        clever_hub.from_pretrained(
            exported("test_resnet"), backend="onnx", device="cuda", tensorrt=True
        )


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_session_that_falls_back_to_the_cpu_is_an_error(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU build without its driver has the provider, and runs on the CPU without an error."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    gpu = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: gpu)
    folder = exported("test_resnet")
    for tensorrt, name in ((False, "CUDA"), (True, "Tensorrt")):
        message = rf"{name}Exec.* runs on CPUExecutionProvider\. Check the driver"
        with pytest.raises(DeviceError, match=message):
            clever_hub.from_pretrained(folder, backend="onnx", device="cuda", tensorrt=tensorrt)


def test_what_keeps_a_gpu_from_working_is_said(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime by itself prints it, drops the options and goes on without the GPU."""
    import onnxruntime

    def refuse(*_: object, enable_fallback: int = 1) -> None:
        assert not enable_fallback
        raise RuntimeError("Invalid device ID: 7")

    gpu = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: gpu)
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(DeviceError, match="by CUDAExecutionProvider: Invalid device ID: 7"):
        clever_hub.from_pretrained(exported("test_resnet"), backend="onnx", device="cuda:7")


def test_devices_become_providers_by_preference() -> None:
    def names(device: str, tensorrt: bool) -> list[str]:
        found = _providers(device, tensorrt)
        assert {entry[1]["device_id"] for entry in found if not isinstance(entry, str)} <= {1}
        return [entry if isinstance(entry, str) else entry[0] for entry in found]

    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    assert names("cpu", False) == [cpu]
    assert names("cuda:1", False) == [cuda, cpu]
    assert names("cuda:1", True) == ["TensorrtExecutionProvider", cuda, cpu]


def test_every_provider_is_checked_and_any_whole_number_is_taken(exported: Exported) -> None:
    folder = exported("test_resnet")
    with pytest.raises(DeviceError, match="NoSuchProvider was asked for"):
        clever_hub.from_pretrained(
            folder, backend="onnx", providers=["CPUExecutionProvider", "NoSuchProvider"]
        )
    clever_hub.from_pretrained(folder, backend="onnx", threads=np.int64(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads: expected 1 to 4096, got 0"),
        ({"threads": "2"}, "threads: expected 1 to 4096, got '2'"),
        ({"threads": 3_000_000_000}, "expected 1 to 4096, got 3000000000"),
        ({"thread": 1}, "no option \\['thread'\\]"),
        ({"dtype": "float16"}, "computes in float32, got float16"),
        ({"providers": ["CPUExecutionProvider"], "device": "cpu"}, "not both"),
        ({"providers": []}, r"providers: expected a list such as .*, got \[\]"),
        ({"providers": "CPUExecutionProvider"}, "providers: expected a list .*, got 'CPUExec"),
        ({"providers": [1]}, r"providers: expected a list such as .*, got \[1\]"),
        ({"providers": [("CPUExecutionProvider",)]}, "providers: expected a list such as"),
        ({"threads": True}, "threads: expected 1 to 4096, got True"),
        ({"tensorrt": True}, 'add device="cuda"'),
        ({"tensorrt": True, "device": "cpu"}, 'add device="cuda"'),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str, exported: Exported) -> None:
    with pytest.raises(ConfigError, match=message):
        clever_hub.from_pretrained(exported("test_resnet"), backend="onnx", **options)


@pytest.mark.parametrize("device", ["tpu", "cuda:²"])
def test_an_unknown_device_is_named(device: str, exported: Exported) -> None:
    with pytest.raises(DeviceError, match=f"'{device}'"):
        clever_hub.from_pretrained(exported("test_resnet"), backend="onnx", device=device)


@pytest.mark.parametrize(
    ("provider", "advice"),
    [
        ("MIGraphXExecutionProvider", "another build of ONNX Runtime"),
        ("CudaExecutionProvider", "Known to ONNX Runtime: .*CUDAExecutionProvider"),
    ],
)
def test_a_provider_that_is_not_there_is_an_error_with_advice(
    provider: str, advice: str, exported: Exported
) -> None:
    import onnxruntime

    if provider in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has {provider}")
    with pytest.raises(DeviceError, match=f"{provider} was asked for.*{advice}"):
        clever_hub.from_pretrained(exported("test_resnet"), backend="onnx", providers=[provider])


def test_the_thread_count_is_the_sessions(exported: Exported) -> None:
    model = clever_hub.from_pretrained(exported("test_resnet"), backend="onnx", threads=3)
    assert model._here().get_session_options().intra_op_num_threads == 3


@pytest.mark.parametrize(("key", "value"), [("num_features", 4096), ("invariant_dim", 60)])
def test_a_config_that_is_not_the_graphs_is_refused(
    key: str, value: int, exported: Exported, tmp_path: Path
) -> None:
    folder = tmp_path / "edited"
    shutil.copytree(exported("test_resnet"), folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(ModelFormatError, match=rf"{key} is {value}, model\.onnx was made with"):
        clever_hub.from_pretrained(folder, backend="onnx")


def test_a_batch_of_another_shape_or_type_is_refused(model: OnnxModel) -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, 3, 32, 32\), got \(1, 3, 40, 40\)"):
        model(np.zeros((1, 3, 40, 40), np.float32))
    with pytest.raises(ValueError, match="expected float32, got float64"):
        model(np.zeros((1, 3, 32, 32)))  # type: ignore[arg-type]


def test_threads_may_share_a_model(exported: Exported, photos: dict[str, Path]) -> None:
    """Each embeds another photo, again and again: nothing of one shows up in another."""
    model = clever_hub.from_pretrained(exported("test_resnet"), backend="onnx", threads=2)
    prepared = [model.preprocessor.batch([path]) for path in photos.values()]
    expected = [model(pixels).full for pixels in prepared]
    assert not np.allclose(expected[0], expected[1], atol=1e-3)
    start = threading.Barrier(len(prepared))

    def work(index: int) -> bool:
        start.wait(timeout=30)
        found = [model(prepared[index]).full for _ in range(50)]
        return all(np.array_equal(rows, expected[index]) for rows in found)

    with ThreadPoolExecutor(len(prepared)) as pool:
        assert list(pool.map(work, range(len(prepared)))) == [True] * len(prepared)


def _embed(model: OnnxModel, path: Path) -> np.ndarray:
    return model.encode(path, num_workers=1).full


def test_a_spawned_worker_opens_its_own_session(model: OnnxModel, photos: dict[str, Path]) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(_embed, model, photos["coffee"]).result(timeout=120)
    assert np.array_equal(found, _embed(model, photos["coffee"]))


FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@FORKS
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_can_embed(
    threads: int, exported: Exported, photos: dict[str, Path]
) -> None:
    """A session's thread pool does not survive a fork; the child opens another."""
    model = clever_hub.from_pretrained(exported("test_resnet"), backend="onnx", threads=threads)
    pixels = model.preprocessor.batch([photos["chelsea"]])
    expected = model(pixels).full
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(model(pixels).full))
    child.start()
    try:
        assert receiver.poll(60), "the child hangs"
        assert np.array_equal(receiver.recv(), expected)
        child.join(10)
        assert child.exitcode == 0
    finally:
        child.kill()


@pytest.mark.parametrize("file", ["model.safetensors", "model.onnx"])
def test_a_copy_of_a_model_whose_files_changed_is_refused(
    file: str, exported: Exported, tmp_path: Path
) -> None:
    """It would compute with other weights than its source names, or read them at a wrong place."""
    folder = tmp_path / "model"
    shutil.copytree(exported("test_resnet"), folder)
    model = clever_hub.from_pretrained(folder, backend="onnx", threads=1)
    pickled = pickle.dumps(model)
    assert pickle.loads(pickled).source == model.source
    content = (folder / file).read_bytes()
    digest = str(model.source.weights_sha256).encode()
    changed = (
        content.replace(digest, digest[::-1]) if file == "model.onnx" else content[:-2] + b"xx"
    )
    assert changed != content
    (folder / file).write_bytes(changed)
    message = r"model\.safetensors: changed since|model\.onnx: made for weights with SHA-256"
    for again in (lambda: pickle.loads(pickled), lambda: copy.deepcopy(model)):
        with pytest.raises(ModelFormatError, match=message):
            again()
    model._session = (-1, model._here())  # as a forked child finds it
    with pytest.raises(ModelFormatError, match=message):
        model(np.zeros((1, 3, 32, 32), np.float32))


def test_a_copy_hashes_the_weights_once(model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    sha256 = Weights.sha256

    def counted(weights: Weights) -> str:
        hashed.append(weights.path)
        return sha256(weights)

    monkeypatch.setattr(Weights, "sha256", counted)
    copy.copy(model)
    assert hashed == [model.folder / "model.safetensors"]


@FORKS
@pytest.mark.parametrize("child", ["del model", "model(pixels)"])
def test_a_forked_child_may_move_and_let_go_of_the_model(
    child: str, exported: Exported, tmp_path: Path
) -> None:
    """Servers load first, then fork and move to /."""
    code = (
        "import os, sys, numpy, clever_hub\n"
        "model = clever_hub.from_pretrained('model', backend='onnx', threads=2)\n"
        "pixels = numpy.zeros((1, 3, 32, 32), 'f')\n"
        "if pid := os.fork():\n"
        "    sys.exit(os.waitpid(pid, 0)[1])\n"
        "os.chdir('/')\n"
        f"{child}\n"
        "print('done', flush=True)\n"
        # As multiprocessing does. Whoever has imported onnxruntime 1.32, forks and ends a child
        # in full waits for ever, with or without this package.
        "os._exit(0)\n"
    )
    (tmp_path / "model").symlink_to(exported("test_resnet"))
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            said, _ = program.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            pytest.fail("the child hangs")
    assert (program.returncode, said) == (0, "done\n")


def test_memory_does_not_grow_with_the_number_of_images(
    model: OnnxModel, photos: dict[str, Path]
) -> None:
    image = model.preprocessor(photos["chelsea"])
    batches = [np.stack([image] * size) for size in (8, 3, 1, 5)]

    def resident() -> int:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc on this system")
    for batch in batches * 5:
        model(batch)
    before = resident()
    for batch in batches * 200:  # 3,400 images; who kept their pixels would keep 42 MB
        model(batch.copy())
    assert resident() - before < 10_000_000


def test_a_graph_that_loads_and_cannot_be_run_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime finds a place beyond the end only when it runs, and would print it, too."""
    helper = onnx.helper
    shape: list[str | int | None] = ["batch", 3, 4, 4]
    entries = np.array([*range(23), 48], np.int64)  # of 48 entries, so 47 is the last
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["all"]),
        helper.make_node("Gather", ["all", "entries"], ["invariant"], axis=1),
        helper.make_node("Identity", ["invariant"], ["equivariant"]),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "beyond",
        [helper.make_tensor_value_info("pixel_values", kind, shape)],
        [
            helper.make_tensor_value_info(name, kind, ["batch", 24])
            for name in ("invariant", "equivariant")
        ],
        [onnx.numpy_helper.from_array(entries, "entries")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    config = ModelConfig("clever-tiny", "resnet18", 48, 24, PreprocessingConfig(4, 4))
    helper.set_model_props(made, {CONFIG_KEY: json.dumps(config.to_dict())})
    onnx.save(made, tmp_path / "model.onnx")
    variant = Variant("fp32", "pixel_values", {}).with_files(tmp_path)
    entry = replace(config, extra={"variant": variant.entry()}).to_dict()
    (tmp_path / "config.json").write_text(json.dumps(entry))
    model = clever_hub.from_pretrained(tmp_path, backend="onnx", threads=1)
    with pytest.raises(ModelFormatError, match=r"model\.onnx: ONNX Runtime .* cannot run it: .*48"):
        model.encode(np.zeros((4, 4, 3), np.uint8))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("key", "value"), [("model_args", {"global_pool": "max"}), ("architecture", "test_resnet2")]
)
def test_a_config_of_another_network_is_refused(
    exported: Callable[..., Path], tmp_path: Path, key: str, value: object
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported("test_resnet"), folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ModelFormatError, match=rf"{key} is .*, model\.onnx was made with"):
        clever_hub.from_pretrained(folder, backend="onnx")
