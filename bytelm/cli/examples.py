"""Examples in the help of the commands; ``tests/cli/test_cli_examples.py`` runs each of them as it stands."""

from collections.abc import Mapping, Sequence

EXAMPLES: Mapping[str, Sequence[str]] = {
    "demo": ("bytelm demo --out demo-out", "bytelm demo --out demo-short --steps 20 --json"),
    "encoding list": ("bytelm encoding list", "bytelm encoding list --sample 今日は良い天気です。"),
    "encoding show": (
        "bytelm encoding show 朝の海",
        "bytelm encoding show 'tea と茶' --encoding dense-ja --png tea.png",
    ),
    "encoding fit": (
        "bytelm encoding fit ja.jsonl --name mine --out mine.json",
        "bytelm encoding fit ja=ja.jsonl en=en.jsonl --balance --order context \\\n    --name both --out both.json",
    ),
    "encoding check": ("bytelm encoding check dense-ja", "bytelm encoding check table.json"),
    "encoding compare": (
        "bytelm encoding compare ja=ja.jsonl en=en.jsonl --png compared.png",
        "bytelm encoding compare ja.jsonl --encodings utf8,dense-ja,table.json",
    ),
    "encoding bench": (
        "bytelm encoding bench --megabytes 1 --seconds 5",
        "bytelm encoding bench ja.jsonl --png speed.png",
    ),
    "corpus build": (
        "bytelm corpus build ja.jsonl en.jsonl --encoding dense-ja --out built",
        "bytelm corpus build texts/ --out split --deduplicate --valid-share 0.1",
        "bytelm corpus build s3://bucket/texts/ --out remote --skip-bad-lines",
    ),
    "corpus info": ("bytelm corpus info corpus", "bytelm corpus info corpus --no-verify --json"),
    "corpus bench": ("bytelm corpus bench --megabytes 4 --repeats 1",),
    "tokenizer train": ("bytelm tokenizer train corpus --vocab-size 300 --out learned",),
    "plan": (
        "bytelm plan --config run.yaml --gpus 8 --gpu h100",
        "bytelm plan --config run.yaml --memory 24 --tflops 100 --data.batch_size 64",
    ),
    "fit": (
        "bytelm fit --config run.yaml",
        "bytelm fit --config run.yaml --model.optimizer.lr 3e-4 --data.batch_size 4",
        "bytelm fit --config run.yaml --twin next-byte --quiet",
        "bytelm fit --resume runs/first/version_0 --trainer.max_steps 5",
    ),
    "validate": (
        "bytelm validate --config run.yaml \\\n    --ckpt_path runs/first/version_0/checkpoints/step-00000004.ckpt",
    ),
    "test": (
        "bytelm test --config run.yaml --data.test corpus --json \\\n"
        "    --ckpt_path runs/first/version_0/checkpoints/step-00000004.ckpt",
    ),
    "export": ("bytelm export runs/first/version_0 --out exported",),
    "generate": (
        "bytelm generate model 朝の海は --do-sample --temperature 0.7 --seed 1",
        "bytelm generate model --prompts-file prompts.txt --max-new-chars 20 --json",
        "bytelm generate model 朝の --law next --draft lookup --stop 。 --stream",
        "bytelm generate model 朝の --pattern '[0-9]{4}年' --trace",
        "bytelm generate model --interactive --do-sample --max-new-chars 40",
        "bytelm generate openai-community/gpt2 'Once upon' --dtype bf16",
    ),
    "score": ("bytelm score model ja.jsonl --law all", "bytelm score model ja.jsonl en.jsonl --limit 100 --json"),
    "compare": ("bytelm compare large=model small=small --data ja.jsonl --out compared",),
    "eval": (
        "bytelm eval --tasks bytelm_ja --model model --limit 2",
        "bytelm eval --tasks bytelm_piqa --model model --law next --out judged --json",
    ),
    "serve": ("bytelm serve model --port 8000 --max-batch 16",),
    "convert": (
        "bytelm convert model for-transformers --to hf",
        "bytelm convert theirs ours --to bytelm --renames names.yaml",
    ),
    "card": ("bytelm card model",),
    "push": ("bytelm push model me/my-model --license apache-2.0 --dry-run",),
    "bench decode": (
        "bytelm bench decode model --batches 1,8 --temperatures 0 --plot speed.png",
        "bytelm bench decode --preset gptj-6b --random-weights --dtype bf16 --int8",
    ),
    "bench train": ("bytelm bench train --config run.yaml --steps 2 --repeats 1 --no-rivals",),
}
"""Lines by command, each at most 74 columns; a command of two words is one of a group."""


def format_examples(command: str) -> str:
    """The examples of a command, or the first one of each command of a group, as a paragraph of click.

    A backspace on a line of its own keeps click from filling the lines after it.
    """
    of_group = [lines[0] for name, lines in EXAMPLES.items() if name.startswith(f"{command} ")]
    lines = EXAMPLES.get(command, of_group)
    if not lines:
        return ""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
