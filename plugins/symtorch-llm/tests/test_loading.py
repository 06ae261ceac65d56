"""Models load from every form of a checkpoint, and what cannot be loaded is refused with what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from symtorch_core import MissingDependencyError, SearchError, SymTorchError
from symtorch_llm.models import gguf as gguf_files
from symtorch_llm.models import loading
from symtorch_llm.models.loading import computes_bfloat16_fast, load_causal, load_encoder, load_model
from symtorch_llm.models.transformer import count_bytes, find_mlps, place_modules

IDS = torch.tensor([[1, 4, 5, 6, 7, 8, 9, 10, 11, 12]])
WEIGHTS = "model.safetensors"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def assert_same(model: Any, other: Any) -> None:
    torch.testing.assert_close(logits(model), logits(other), rtol=0, atol=0)


@pytest.fixture
def copied(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "copied"))


def test_a_model_comes_ready_with_what_it_is(toy: Path) -> None:
    loaded = load_model(str(toy))
    model: Any = loaded.model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert loaded.tokenizer("one fox")["input_ids"] == [2, 3]
    # Embedding and head; per layer q, o, k, v of one head in two, three maps of the MLP, two norms; the last norm.
    parameters = 2 * 14 * 16 + 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 40 + 2 * 16) + 16
    assert str(loaded.about) == f"{parameters:,} parameters, float32"
    assert load_model(str(toy), dtype="bfloat16").about.dtype == "bfloat16"


def test_parts_with_an_index_are_one_model(toy_gemma3: Path, tmp_path: Path) -> None:
    whole: Any = load_causal(str(toy_gemma3))[0]
    parts = Path(shutil.copytree(toy_gemma3, tmp_path / "parts"))
    (parts / WEIGHTS).unlink()
    whole.save_pretrained(parts, max_shard_size="20KB")
    files = sorted(parts.glob("*.safetensors"))
    assert len(files) > 1
    assert_same(load_causal(str(parts))[0], whole)
    files[1].unlink()
    with pytest.raises(
        SearchError, match=f"{files[1].name} is missing, which model.safetensors.index.json names"
    ):
        load_causal(str(parts))
    (parts / "model.safetensors.index.json").write_text('{"weight_map": 3}', encoding="utf-8")
    with pytest.raises(SearchError, match="index.json is damaged"):
        load_causal(str(parts))


def test_a_head_that_is_the_embedding_stays_so(toy_qwen2: Path, toy_gemma3: Path) -> None:
    for folder in (toy_qwen2, toy_gemma3):
        loaded = load_model(str(folder))
        model: Any = loaded.model
        assert model.lm_head.weight is model.get_input_embeddings().weight
        apart = nn.Linear(16, 14, bias=False)
        with place_modules(model, {"lm_head": apart}):  # which are counted once, and so twice
            assert count_bytes([model]) == count_bytes([model, apart])
            more = count_bytes([model])
        assert more - count_bytes([model]) == 14 * 16 * 4
        assert loaded.about.parameters == sum(one.numel() for one in load_file(folder / WEIGHTS).values())


def test_local_layers_of_gemma_do_not_see_what_global_ones_do(toy_gemma3: Path) -> None:
    model: Any = load_causal(str(toy_gemma3))[0]
    ids = torch.arange(20)[None] % 12 + 2
    other = ids.clone()
    other[0, 0] = 1

    def last(tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = model(input_ids=tokens).logits[0, -1]
        return found

    assert not torch.allclose(last(ids), last(other))
    with torch.no_grad():  # two layers that see 7 tokens back each do not reach 19 back
        model.model.layers[1].self_attn.o_proj.weight.zero_()
    torch.testing.assert_close(last(ids), last(other))


# ------------------------------------------------------------------------------------------------------------ GGUF

LETTERS = ["o", "n", "e", "f", "x", "Ġ", "on", "one", "fo", "fox", "r", "."]


def write_gguf(file: Path, model: Any, quantise: str = "") -> None:
    """A model of Qwen2's kind with a byte-level tokenizer; the maps of its MLPs are quantised, if a type is given."""
    gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    config = model.config
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(["<unk>", "<s>", *LETTERS])
    writer.add_token_types([2, 3, *(1 for _ in LETTERS)])
    writer.add_token_merges(["o n", "on e", "f o", "fo x"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for key, value in model.state_dict().items():
        if key == "lm_head.weight":
            continue
        name, numbers = names.get_name(key, (".weight", ".bias")), value.numpy()
        if quantise and ".mlp." in key:
            kind = gguf.GGMLQuantizationType[quantise]
            writer.add_tensor(name, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(numbers))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def small() -> Any:
    """Wide enough for blocks of 32 numbers."""
    config = Qwen2Config(
        vocab_size=14, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.4, bos_token_id=1, eos_token_id=0,
        tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config).eval()


def test_a_gguf_file_is_the_model_that_was_written(small: Any, tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_gguf(folder / "small.gguf", small)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.gguf").write_bytes(b"another file of this name, where the command runs")
    for path in (folder, folder / "small.gguf", Path("folder/small.gguf")):
        loaded = load_model(str(path))
        model: Any = loaded.model
        assert_same(model, small)
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert loaded.tokenizer("one fox")["input_ids"] == [9, 7, 11]
        assert loaded.about.made_float == ""
    # It is as any other model: nothing says that it was quantised.
    model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text("utf-8"))
    assert_same(load_causal(str(folder))[0], small)  # of both, the folder's own weights are taken


def test_quantised_weights_are_made_float_and_that_is_said(small: Any, tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf", small, "Q8_0")
    loaded = load_model(str(tmp_path))
    assert loaded.about.made_float == "weights of 8 bits made float again (GGUF Q8_0)"
    assert loaded.about.dtype == "float32"
    model: Any = loaded.model
    wanted, found = (one.model.layers[1].mlp.down_proj.weight for one in (small, model))
    # Half a step, and what the step itself is off, which is kept in float16.
    step = wanted.reshape(-1, 32).abs().amax(1).repeat_interleave(32).reshape(wanted.shape) / 127
    assert ((found - wanted).abs() <= (0.5 + 127 / 2**11) * step).all()
    assert not torch.equal(found, wanted)
    model.save_pretrained(tmp_path / "float")
    loaded.tokenizer.save_pretrained(tmp_path / "float")
    assert_same(load_causal(str(tmp_path / "float"))[0], model)
    assert load_model(str(tmp_path), dtype="bfloat16").about.dtype == "bfloat16"


def test_gguf_files_that_cannot_be_read_are_refused(small: Any, tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "small.gguf"
    write_gguf(file, small)
    whole = file.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 300, 30, 5):
        file.write_bytes(whole[:length])
        with pytest.raises(SearchError, match="small.gguf is damaged or cut short"):
            load_causal(str(file))
    file.write_bytes(b"no such thing")
    with pytest.raises(SearchError, match="is no GGUF file"):
        load_causal(str(file))
    file.write_bytes(whole.replace(b"qwen2", b"wonder"[:5]))
    with pytest.raises(SearchError, match="cannot load a model.*wonde"):
        load_causal(str(file))
    (tmp_path / "other.gguf").write_bytes(whole)
    with pytest.raises(SearchError, match="give the path of one of other.gguf, small.gguf"):
        load_causal(str(tmp_path))
    with pytest.raises(SearchError, match="there is no such file"):
        load_causal(str(tmp_path / "third.gguf"))
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'symtorch-llm\[gguf\]'"):
        load_causal(str(tmp_path / "other.gguf"))


def test_a_part_of_a_gguf_file_is_refused(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    writer = gguf.GGUFWriter(tmp_path / "a-00001-of-00002.gguf", "qwen2")
    writer.add_uint16("split.count", 2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(SearchError, match="one of 2 parts: join them"):
        load_causal(str(tmp_path))


# ------------------------------------------------------------------------------------------------------- refusals


def change_config(name: str = "config.json", **entries: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **entries}), encoding="utf-8")

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def changing(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return changing


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: folder.joinpath(name).write_bytes((folder / name).read_bytes()[:-40]) and None


CODE = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (cut(WEIGHTS), "model.safetensors is damaged or cut short"),
        (cut("config.json"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
        (lambda folder: (folder / WEIGHTS).unlink(), "holds no weights"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer can be read.*copy tokenizer.json"),
        (change_config(auto_map=CODE), "code of its own.*'llama' is meant, delete auto_map"),
        (change_config("tokenizer_config.json", auto_map=CODE), "tokenizer_config.json asks for code of its own"),
        (change_config(auto_map=CODE, model_type="own"), "code of its own.*Take a model that transformers has"),
        (change_config(model_type="own"), "does not know its architecture, model_type 'own'"),
        (change_config(model_type="t5"), "no causal model of type 't5': try kind='encoder'"),
        (change_config(quantization_config={"quant_method": "awq", "bits": 4}), r"quantised \(awq\).*or a GGUF"),
        (change_config(quantization_config={"quant_method": "gptq", "bits": 4}), r"quantised \(gptq\)"),
        (lambda folder: (folder / "quantize_config.json").write_text("{}"), r"quantised \(gptq or awq\)"),
        (change_config(hidden_act="nosuch"), "KeyError: 'nosuch'"),
        (change_config(hidden_size="wide"), "(?s:.*)expected int, got str"),
        (change_weights(lambda found: found.pop("model.norm.weight")), "its weights lack model.norm.weight"),
        (change_config(intermediate_size=48), "have other sizes than the configuration says for model.layers.0.mlp"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "an adapter.*merge it"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_said(change: Callable[[Path], Any], said: str, copied: Path) -> None:
    change(copied)
    with pytest.raises(SearchError, match=f"cannot load a model from .*copied.*{said}"):
        load_causal(str(copied))


def test_code_of_a_checkpoint_never_runs(copied: Path) -> None:
    ran = copied / "ran"
    (copied / "own.py").write_text(f"open({str(ran)!r}, 'w').close()", encoding="utf-8")
    change_config(auto_map=CODE)(copied)
    with pytest.raises(SearchError):
        load_causal(str(copied))
    change_config(auto_map={})(copied)

    class Runs:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(ran),)

    tensors = load_file(copied / WEIGHTS)
    (copied / WEIGHTS).unlink()
    torch.save({**tensors, "more": Runs()}, copied / "pytorch_model.bin")
    with pytest.raises(SearchError, match="pytorch_model.bin does not hold tensors alone"):
        load_causal(str(copied))
    assert not ran.exists()


def test_pickled_tensors_alone_are_read(toy: Path, copied: Path) -> None:
    torch.save(load_file(copied / WEIGHTS), copied / "pytorch_model.bin")
    (copied / WEIGHTS).unlink()
    assert_same(load_causal(str(copied))[0], load_causal(str(toy))[0])
    cut("pytorch_model.bin")(copied)
    with pytest.raises(SearchError, match="pytorch_model.bin does not hold tensors alone, or is damaged"):
        load_causal(str(copied))


def test_no_tokenizer_is_made_up(toy_qwen2: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_qwen2, tmp_path / "copied"))
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(SearchError, match="no tokenizer can be read"):  # transformers makes an empty one
        load_causal(str(folder))


def test_an_encoder_may_lack_what_no_score_uses(toy_encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_encoder, tmp_path / "copied"))
    change_weights(lambda found: [found.pop(name) for name in list(found) if name.startswith("pooler.")])(
        folder
    )
    whole, less = (load_encoder(str(path))[0] for path in (toy_encoder, folder))
    ids = {"input_ids": IDS}
    torch.testing.assert_close(less(**ids).last_hidden_state, whole(**ids).last_hidden_state, rtol=0, atol=0)
    with pytest.raises(SearchError, match="its weights lack"):  # BERT's folder has no head for next tokens
        load_causal(str(toy_encoder))


def test_models_that_do_not_fit_are_refused(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "get_free_memory", lambda: 20_000)
    with pytest.raises(
        SearchError, match="2.3.e-05 GB of memory in float32, and 2e-05 GB are free.*bfloat16"
    ):
        load_causal(str(toy))
    load_causal(str(toy), dtype="bfloat16")
    monkeypatch.setattr(loading, "get_free_memory", lambda: 10_000)
    with pytest.raises(SearchError, match="in bfloat16, and 1e-05 GB are free: free some"):
        load_causal(str(toy), dtype="bfloat16")


def test_dtypes_and_devices_that_are_not_there_are_said(toy: Path) -> None:
    options: Mapping[str, Any]
    for options, said in (
        ({"dtype": "bfloat"}, "unknown dtype 'bfloat'. Did you mean 'bfloat16'"),
        ({"dtype": torch.bfloat16}, "unknown dtype 'torch.bfloat16'. Did you mean 'bfloat16'"),
        ({"dtype": "int8"}, "there are: auto, float32, bfloat16"),
        ({"device": "gpu"}, "device='gpu' cannot be used here"),
        ({"device": "meta"}, "device='meta' cannot be used here: it holds no numbers"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here"),
    ):
        with pytest.raises(SymTorchError, match=said):
            load_causal(str(toy), **options)
    with pytest.raises(SearchError, match="unknown kind 'decoder'. Did you mean 'encoder'"):
        load_model(str(toy), "decoder")


def test_a_name_on_the_hub_is_read_as_a_folder(toy: Path, tmp_path: Path, monkeypatch: Any) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--some--model"
    shutil.copytree(toy, kept / "snapshots" / "0123456789abcdef")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123456789abcdef", encoding="utf-8")
    assert_same(load_causal("some/model")[0], load_causal(str(toy))[0])
    change_config(auto_map=CODE)(kept / "snapshots" / "0123456789abcdef")
    with pytest.raises(SearchError, match="code of its own"):
        load_causal("some/model")
    with pytest.raises(SearchError, match="no folder 'other/model' here, so it was looked for on the hub"):
        load_causal("other/model")


def test_processors_that_compute_bfloat16_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for found, fast in (({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert computes_bfloat16_fast() is fast
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not computes_bfloat16_fast()
    assert not computes_bfloat16_fast("meta")


def test_mlps_are_found_in_models_that_tie(toy_qwen2: Path, toy_gemma3: Path) -> None:
    for folder in (toy_qwen2, toy_gemma3):
        assert find_mlps(load_causal(str(folder))[0]) == [f"model.layers.{number}.mlp" for number in range(3)]
