"""The classes in this process: logits, losses, and generation with the arguments people pass."""

import inspect
import math

import numpy as np
import pytest
import torch
import transformers
from support import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, TextIteratorStreamer

from bytelm.encoding import get_encoding
from bytelm.errors import BytelmError, DecodingError
from bytelm.hf.configuration_bytelm import BytelmConfig
from bytelm.hf.modeling_bytelm import BytelmForCausalLM
from bytelm.model.laws import score_symbols

PROMPTS = ["港の朝", "山のふもとの小さな駅で、電車は", ""]


@pytest.fixture(scope="session", name="model")
def fixture_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="session", name="tokenizer")
def fixture_tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def batch(tokenizer, side="left", **options):
    return tokenizer(PROMPTS, padding=True, padding_side=side, return_tensors="pt", **options)


def rows_of(inputs, outputs, pad):
    """What was generated, without filling."""
    width = inputs["input_ids"].shape[1]
    return [np.array([i for i in row if i != pad]) for row in outputs[:, width:].tolist()]


def same(lm, tokenizer, inputs, outputs, **options):
    """Whether generated ids are those of ``bytelm generate``."""
    expected = lm.generate(PROMPTS, **options).ids
    found = rows_of(inputs, outputs, tokenizer.pad_token_id)
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_classes_are_ours_and_not_of_the_folder(model, tokenizer):
    assert type(model) is BytelmForCausalLM
    assert type(model.config) is BytelmConfig
    assert type(tokenizer).__module__ == "bytelm.hf.tokenization_bytelm"


# Logits and losses


def slow_logits(lm, ids):
    """(L, V): head 1 after each prefix, each read alone behind BOS."""
    opening, patch = lm.tokenizer.opening(lm.config.patch), lm.config.patch
    found = []
    for end in range(1, len(ids) + 1):
        whole = np.concatenate((opening, ids[:end])).astype(np.int64)
        windows = torch.from_numpy(whole[len(whole) % patch :]).view(1, -1, patch)
        h = lm.model(windows)[:, -1]
        found.append(lm.model.heads.step(h, windows[:, -1], windows[:, -1, :0])[0])
    return torch.stack(found)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bos", [False, True])
def test_logits_are_the_law_after_every_prefix(lm, model, tokenizer, side, bos):
    inputs = batch(tokenizer, side, add_special_tokens=bos)
    logits = model(**inputs).logits
    assert logits.shape == (*inputs["input_ids"].shape, 256)
    lead = 4 if bos else 0
    for row, prompt in enumerate(PROMPTS):
        real = inputs["attention_mask"][row].bool()
        assert torch.all(logits[row][~real] == 0)
        if prompt:
            expected = slow_logits(lm, lm.tokenizer.encode(prompt))
            torch.testing.assert_close(logits[row][real][lead:], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_log_likelihoods_are_those_of_score(lm, model, tokenizer):
    text = "市場には魚を選ぶ人の声がひびいた。"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    log_p = model(input_ids=ids).logits.double().log_softmax(-1)
    found = -log_p[0, 3:-1].gather(1, ids[0, 4:, None]).sum().item()
    assert found == pytest.approx(lm.score([text], law="next").total.nats, rel=1e-5)


@torch.no_grad()
def test_the_loss_is_the_mean_of_all_heads_over_all_phases(lm, model, tokenizer):
    ids = torch.tensor([tokenizer("図書館の窓から見える川は、雨のあと")["input_ids"]])
    opening = len(lm.tokenizer.opening(4))
    nats = count = 0
    for phase in range(4):
        piece = ids[:, phase : phase + (ids.shape[1] - phase) // 4 * 4]
        found = lm.model.patch_nats(piece)[0]
        places = torch.arange(phase + 4, phase + piece.shape[1]).view(-1, 4)
        counted = places >= opening
        nats, count = nats + found[counted].sum(), count + int(counted.sum())
    # The last bytes of each phase that fill no patch are predicted, too, by the heads that reach them.
    rest = 0
    for phase in range(4):
        end = phase + (ids.shape[1] - phase) // 4 * 4
        short = ids.shape[1] - end
        if short:
            padded = torch.nn.functional.pad(ids[:, phase:], (0, 4 - short))
            rest, count = rest + lm.model.patch_nats(padded)[0, -1, :short].sum(), count + short
    loss = model(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(loss, (nats + rest) / count, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_labels_that_do_not_count_and_padding_change_no_loss(model, tokenizer):
    inputs = batch(tokenizer)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    together = model(**inputs, labels=labels).loss
    alone = []
    for row in range(2):
        real = inputs["attention_mask"][row].bool()
        ids = inputs["input_ids"][row][real][None]
        alone.append(model(input_ids=ids, labels=ids).loss)
    num = [sum(min(4, t + 1) for t in range(int(inputs["attention_mask"][row].sum()) - 4)) for row in range(2)]
    expected = (alone[0] * num[0] + alone[1] * num[1]) / sum(num)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)
    half = labels.clone()
    half[0] = -100
    torch.testing.assert_close(model(**inputs, labels=half).loss, alone[1], atol=1e-5, rtol=1e-5)
    wrong = half.clone()
    wrong[1, -1] = (wrong[1, -1] + 1) % 256
    assert not torch.allclose(model(**inputs, labels=wrong).loss, alone[1])


@torch.no_grad()
def test_all_heads(lm, model, tokenizer):
    ids = torch.tensor([tokenizer("夏の終わりの匂い")["input_ids"]])
    found = model(input_ids=ids, output_head_logits=True)
    assert found.head_logits.shape == (*ids.shape, 4, 256)
    torch.testing.assert_close(found.logits, model(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    whole = ids[:, : ids.shape[1] // 4 * 4]
    expected, _ = lm.model.predict(whole)
    torch.testing.assert_close(found.head_logits[:, 3 : whole.shape[1] - 4 : 4], expected, atol=1e-5, rtol=1e-5)
    kept = model(input_ids=ids, logits_to_keep=2).logits
    torch.testing.assert_close(kept, found.logits[:, -2:], atol=1e-5, rtol=1e-5)
    assert isinstance(model(input_ids=ids, return_dict=False), tuple)


def test_gradients_reach_every_weight(lm):
    model = BytelmForCausalLM(BytelmConfig(model=lm.config.to_dict(), encoding=lm.tokenizer.encoding.to_dict()))
    ids = torch.randint(0, 240, (2, 19))
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    "arguments",
    [
        {"past_key_values": ()},
        {"inputs_embeds": torch.zeros(1, 1, 32)},
        {"output_hidden_states": True},
        {"output_attentions": True},
    ],
)
def test_forward_refuses_what_it_has_not(model, arguments):
    (name,) = arguments
    with pytest.raises(DecodingError, match=name):
        model(input_ids=torch.zeros(1, 4, dtype=torch.long), **arguments)


def test_forward_refuses_bad_ids(model):
    with pytest.raises(DecodingError, match="expected 0 to 255"):
        model(input_ids=torch.tensor([[1, 256]]))
    with pytest.raises(DecodingError, match="expected at most the context of 256"):
        model(input_ids=torch.zeros(1, 253, dtype=torch.long))


def test_training_lowers_the_loss_and_saving_comes_back_to_the_bit(lm, tokenizer, tmp_path):
    config = BytelmConfig(model=lm.config.to_dict(), encoding=lm.tokenizer.encoding.to_dict())
    model = BytelmForCausalLM(config).train()
    ids = torch.tensor([tokenizer("雨のあとの川は少し速く流れる。")["input_ids"]] * 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    model.eval().save_pretrained(tmp_path)
    assert (tmp_path / "modeling_bytelm.py").is_file()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in again.state_dict().items())


def test_a_pipeline_says_what_bytelm_generate_says(lm, model, tokenizer):
    speak = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    found = speak(PROMPTS[1], max_new_tokens=20, do_sample=False)[0]["generated_text"]
    assert found == PROMPTS[1] + lm.generate([PROMPTS[1]], max_new_tokens=20).texts[0]


# Generation


@pytest.mark.parametrize("law", [None, "next"])
@pytest.mark.parametrize("bos", [False, True])
def test_generate_gives_the_ids_of_bytelm_generate(lm, model, tokenizer, law, bos):
    inputs = batch(tokenizer, add_special_tokens=bos)
    outputs = model.generate(**inputs, max_new_tokens=20, do_sample=False, law=law)
    assert torch.equal(outputs[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    assert same(lm, tokenizer, inputs, outputs, max_new_tokens=20, law=law)


SETTINGS = [
    ({"do_sample": True, "temperature": 0.8, "top_k": 20, "seed": 5}, None),
    ({"do_sample": True, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.95, "seed": [1, 2, 3]}, None),
    ({"repetition_penalty": 1.3, "no_repeat_ngram_size": 3}, None),
    ({"draft": "none"}, None),
    ({"prompt_lookup_num_tokens": 8}, {}),
    ({"sequence_bias": {(7, 8): 2.0, (9,): -3.0}}, {"sequence_bias": {(7, 8): 2.0, (9,): -3.0}}),
    ({"sequence_bias": [[[7, 8], 2.0]]}, {"sequence_bias": {(7, 8): 2.0}}),
    ({"bad_words_ids": [[3], [4, 5]]}, {"sequence_bias": {(3,): -math.inf, (4, 5): -math.inf}}),
    ({"suppress_tokens": [0, 1]}, {"sequence_bias": {0: -math.inf, 1: -math.inf}}),
    ({"stop_strings": ["。", "、"]}, {"stop": ["。", "、"]}),
    ({"stop_strings": "の"}, {"stop": "の"}),
    ({"min_new_tokens": 6}, None),
    ({"top_k": 0, "top_p": 1.0, "num_beams": 1, "use_cache": False, "renormalize_logits": False}, {"top_p": 1.0}),
    ({"valid_text": True, "do_sample": True, "seed": 1}, None),
    ({"eos_token_id": 17}, None),
    ({"eos_token_id": [17, 40]}, None),
    ({"eos_token_id": [[17, 40], [3]]}, None),
    ({"eos_token_id": torch.tensor([17])}, {"eos_token_id": [17]}),
]


@pytest.mark.parametrize(("theirs", "ours"), SETTINGS, ids=lambda value: ",".join(value) if value else "same")
def test_settings_mean_the_same(lm, model, tokenizer, theirs, ours):
    inputs = batch(tokenizer)
    outputs = model.generate(**inputs, max_new_tokens=14, tokenizer=tokenizer, **theirs)
    assert same(lm, tokenizer, inputs, outputs, max_new_tokens=14, **(theirs if ours is None else ours))


def test_the_models_own_end_by_any_of_its_names(lm, model, tokenizer):
    eos = tokenizer.eos_token_id
    expected = model.generate(**batch(tokenizer), max_new_tokens=14)
    for name in (eos, [eos], [[eos]], tokenizer.encode(tokenizer.eos_token, add_special_tokens=False)):
        assert torch.equal(model.generate(**batch(tokenizer), max_new_tokens=14, eos_token_id=name), expected)


def test_lengths(model, tokenizer):
    inputs = batch(tokenizer)
    width = inputs["input_ids"].shape[1]

    def length(**options):
        return model.generate(**inputs, eos_token_id=[[1, 2, 3, 4, 5, 6]], **options).shape[1] - width

    assert length(max_new_tokens=5) == 5
    assert length(max_length=width + 7) == 7
    assert length(max_length=width + 7, max_new_tokens=3) == 3
    assert length(generation_config=GenerationConfig(max_new_tokens=6)) == 6
    assert length(generation_config=GenerationConfig(max_new_tokens=6), max_length=width + 2) == 2
    assert length() == 160  # of generation_config.json
    with pytest.raises(DecodingError, match="max_length: found 3"):
        length(max_length=3)


def test_sequences_streams_and_dicts(lm, model, tokenizer):
    inputs = tokenizer(PROMPTS[:2], padding=True, return_tensors="pt")
    options = {"do_sample": True, "seed": 4, "max_new_tokens": 9}
    outputs = model.generate(**inputs, num_return_sequences=3, **options)
    expected = lm.generate(PROMPTS[:2], num_return_sequences=3, **options).ids
    found = rows_of(inputs, outputs, tokenizer.pad_token_id)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    named = model.generate(**inputs, num_return_sequences=3, return_dict_in_generate=True, **options)
    assert torch.equal(named.sequences, outputs)
    one = tokenizer(PROMPTS[1], return_tensors="pt")
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=5)
    ids = model.generate(**one, streamer=streamer, max_new_tokens=12)
    assert "".join(streamer) == tokenizer.decode(ids[0, one["input_ids"].shape[1] :])
    with pytest.raises(DecodingError, match="streamer: found 2 rows"):
        model.generate(**inputs, streamer=streamer, max_new_tokens=2)


def test_sampling_follows_the_generator_of_torch(model, tokenizer):
    inputs = batch(tokenizer)

    def drawn(seed):
        transformers.set_seed(seed)
        return model.generate(**inputs, do_sample=True, max_new_tokens=12).tolist()

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_processors_and_criteria(lm, model, tokenizer):
    inputs = batch(tokenizer)
    seen = []

    def only_low(ids, scores):
        seen.append(ids.shape)
        return scores.masked_fill(torch.arange(256) >= 60, -math.inf)

    outputs = model.generate(**inputs, max_new_tokens=8, logits_processor=transformers.LogitsProcessorList([only_low]))
    assert same(lm, tokenizer, inputs, outputs, max_new_tokens=8, logits_processor=only_low)
    assert seen
    width = inputs["input_ids"].shape[1]
    criteria = transformers.StoppingCriteriaList([lambda ids, scores: torch.tensor([ids.shape[1] >= 12])])
    found = rows_of(inputs, model.generate(**inputs, max_new_tokens=30, stopping_criteria=criteria), 248)
    lengths = [int(mask.sum()) for mask in inputs["attention_mask"]]
    assert width == max(lengths)
    for ids, length in zip(found, lengths, strict=True):
        assert len(ids) == max(1, 12 - length)


def test_padding_without_a_mask_and_prompts_that_are_missing(lm, model, tokenizer):
    inputs = batch(tokenizer)
    masked = model.generate(**inputs, max_new_tokens=9)
    assert torch.equal(model.generate(inputs["input_ids"], max_new_tokens=9), masked)
    empty = model.generate(max_new_tokens=9)
    expected = lm.generate([""], max_new_tokens=9).ids[0]
    assert empty[0].tolist() == [*tokenizer(tokenizer.bos_token, add_special_tokens=False)["input_ids"], *expected]


def test_another_model_drafts(model, tokenizer):
    inputs = batch(tokenizer)
    expected = model.generate(**inputs, max_new_tokens=16)
    assert torch.equal(model.generate(**inputs, max_new_tokens=16, assistant_model=model), expected)


def test_generate_keeps_the_mode(model, tokenizer):
    model.train()
    model.generate(**batch(tokenizer), max_new_tokens=2)
    assert model.training
    assert model.model.training
    model.eval()


REFUSED = {
    "num_beams": 2,
    "prefix_allowed_tokens_fn": lambda batch_id, ids: [1],
    "custom_generate": lambda *args: None,
    "synced_gpus": True,
    "negative_prompt_ids": torch.zeros(1, 1),
    "guidance_scale": 1.5,
    "penalty_alpha": 0.6,
    "output_scores": True,
    "forced_eos_token_id": 3,
    "begin_suppress_tokens": [3],
    "exponential_decay_length_penalty": (3, 1.1),
    "watermarking_config": {"bias": 2.0},
    "cache_implementation": "static",
    "epsilon_cutoff": 0.1,
    "past_key_values": (),
    "position_ids": torch.zeros(1, 1),
    "no_such_thing": 3,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_refused_by_name(model, tokenizer, name):
    with pytest.raises(DecodingError, match=f"^{name}: ") as caught:
        model.generate(**batch(tokenizer), max_new_tokens=2, **{name: REFUSED[name]})
    assert "\n" not in str(caught.value)


def test_every_setting_of_transformers_is_served_or_refused(model, tokenizer):
    """No setting passes in silence: each name that transformers knows is in one of the tables, or raises."""
    from bytelm.hf import generation

    inputs = tokenizer("朝", return_tensors="pt")
    known = {*generation._SAME, *generation._READ, *generation._WITHOUT_EFFECT}
    names = set(GenerationConfig().to_dict()) | set(inspect.signature(transformers.GenerationMixin.generate).parameters)
    served = {"self", "inputs", "kwargs", "generation_config", "logits_processor", "stopping_criteria", "streamer"}
    for name in sorted(names - known - served - {"assistant_model"}):
        with pytest.raises(BytelmError):
            model.generate(**inputs, max_new_tokens=2, **{name: object()})


def test_a_model_that_was_never_trained(tmp_path):
    encoding = get_encoding("utf16")
    model = tiny_model("chained")
    config = BytelmConfig(model=model.config.to_dict(), encoding=encoding.to_dict())
    fresh = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in fresh.parameters()) == model.config.num_parameters()
    assert score_symbols(fresh.model.eval(), "next", [np.arange(12, dtype=np.uint8)], [4])
