"""Models of tokens: the figures of the harness's own class for transformers, on the same folders."""

import warnings

import pytest
from bpe_support import split_files, train
from harness_support import BytelmLM, requests
from tokenizers import decoders
from toy_checkpoints import write_gpt2, write_gptj, write_llama

pytest.importorskip("accelerate", reason="the harness's class for transformers imports it")

TOKENS, CONTEXT = 340, 96
PAIRS = [
    ("The ferry leaves at nine, and", " the ferryman won't wait"),
    ("The ferry leaves at nine, and ", "the ferryman"),
    ("The ferry leaves at nine, and\n\n ", "they'll row"),
    ("The ferry leaves at nine, and", "!"),
    ("", "El niño comió una piña"),
    ("川の水は", "冷たい。水の音がする。"),
    ("川の魚を見る。", "水"),
    ("for i in range(10):\n\tif i", " == 7:\n\t\tcontinue"),
    ("🐟🐟 fish ", "🐟"),
    ("The ferry leaves. " * 40, "The ferryman won't."),
    ("x", " y" * 20),
    ("z" * 200, " y" * 40),
]
STRADDLED = [("The ferry lea", "ves at nine, and the ferryman won't"), ("川の水は冷", "たい。水の音がする。")]


@pytest.fixture(scope="module", params=["gptj", "gpt2", "llama"])
def both(request, tmp_path_factory):
    """The harness's class and ours on a checkpoint each of whose rows has a token."""
    folder = tmp_path_factory.mktemp("parity") / request.param
    trained = train(folder.with_name("trained"), TOKENS)
    split_files(trained, folder)
    (folder / "tokenizer.json").write_bytes((trained / "tokenizer.json").read_bytes())
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    match request.param:
        case "gptj":
            write_gptj(folder, tokens=TOKENS, vocab_size=TOKENS, n_positions=CONTEXT, **ends)
        case "gpt2":
            write_gpt2(folder, tokens=TOKENS, n_positions=CONTEXT, seed=3, **ends)
        case _:
            write_llama(folder, tokens=TOKENS, max_position_embeddings=CONTEXT, tied=True, **ends)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.models.huggingface import HFLM
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), bos_token="<|endoftext|>", eos_token="<|endoftext|>"
        )
        tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
        model = AutoModelForCausalLM.from_pretrained(folder)
        theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, max_length=CONTEXT)
    return theirs, BytelmLM(folder, batch_size=3)


@pytest.fixture(autouse=True)
def _others_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(transformers|lm_eval|accelerate)")
        yield


def agree(found, expected):
    for (ours, our_greedy), (theirs, their_greedy) in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
        assert our_greedy == their_greedy


def test_loglikelihoods(both):
    theirs, ours = both
    asked = requests("loglikelihood", *PAIRS, *STRADDLED)
    agree(ours.loglikelihood(asked), theirs.loglikelihood(asked, disable_tqdm=True))
    assert ours.counts.truncated == 2
    assert ours.counts.straddled >= 1


def test_one_token_of_them_is_greedy(both):
    """Every token after a context: the flags agree, and some are true."""
    theirs, ours = both
    tokens = [ours.lm.tokenizer.decode([n], errors="replace") for n in range(1, TOKENS)]
    tokens = [text for text in tokens if text.isprintable() and "\ufffd" not in text and text.strip() == text]
    asked = requests("loglikelihood", *((c, text) for c in ("The ferry", "for i in range(") for text in tokens))
    found = ours.loglikelihood(asked)
    agree(found, theirs.loglikelihood(asked, disable_tqdm=True))
    assert len(found) > 200


def test_rolling(both):
    theirs, ours = both
    short = ["The ferry leaves at nine.", "川の水は冷たい。", "for i in range(10):\n\tif i == 7:"]
    asked = requests("loglikelihood_rolling", *((text,) for text in short))
    expected = theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    assert ours.loglikelihood_rolling(asked) == pytest.approx(expected, abs=1e-4)
    asked = requests("loglikelihood_rolling", *((" ".join(short) * n,) for n in (4, 9)))
    expected = theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    end_to_end = BytelmLM(ours.lm, windows="harness", batch_size=2).loglikelihood_rolling(asked)
    assert end_to_end == pytest.approx(expected, rel=1e-5, abs=1e-4)
    assert ours.loglikelihood_rolling(asked) != pytest.approx(expected, abs=1e-2)  # half a context more to each symbol


def test_generation(both):
    theirs, ours = both
    contexts = [context for context, _ in PAIRS if context.strip()]
    for keywords in [
        {"until": ["\n\n"], "max_gen_toks": 12},
        {"until": ["e", "水"], "max_gen_toks": 30, "do_sample": False},
        {"until": [], "max_gen_toks": 5, "temperature": 0.0},
    ]:
        asked = requests("generate_until", *((context, keywords) for context in contexts))
        found, expected = ours.generate_until(asked), theirs.generate_until(asked, disable_tqdm=True)
        # What a limit leaves of a character is no text of ours, and U+FFFD of theirs.
        assert [text.rstrip("\ufffd") for text in found] == [text.rstrip("\ufffd") for text in expected]
        assert all(found)


def test_where_the_harness_has_no_answer(both):
    """A token of the joint text covers all of the continuation: it is encoded by itself. White space alone is BOS."""
    _, ours = both
    before = ours.counts.apart
    ((split, _),) = ours.loglikelihood(requests("loglikelihood", ("The ferr", "y")))
    assert ours.counts.apart == before + 1
    ids = [ours.lm.tokenizer.encode(text) for text in ("The ferr", "y")]
    ((_, scored),) = ours.lm.score_ids(ids[:1], ids[1:])
    assert split == pytest.approx(-scored.nats.sum(), abs=1e-4)
    (space, _), (begun, _) = ours.loglikelihood(requests("loglikelihood", (" ", "x"), ("", " x")))
    assert space == pytest.approx(begun, abs=1e-5)
