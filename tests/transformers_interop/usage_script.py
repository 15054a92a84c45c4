"""How the reference model is used by its card, but for the path and the device: two prompts of different length."""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL, RESULT = sys.argv[1], Path(sys.argv[2])
TEXTS = ["港の朝", "山のふもとの小さな駅で、"]

tokenizer = AutoTokenizer.from_pretrained(MODEL, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(MODEL, trust_remote_code=True, dtype=torch.float32)
model.to("cpu").eval()

inputs = tokenizer(
    [f"{tokenizer.bos_token}{text}" for text in TEXTS],
    add_special_tokens=False,
    padding="longest",
    return_tensors="pt",
).to(model.device)

outputs = model.generate(
    input_ids=inputs["input_ids"],
    attention_mask=inputs["attention_mask"],
    eos_token_id=[tokenizer.encode("\n", add_special_tokens=False)],
    pad_token_id=tokenizer.pad_token_id,
    max_new_tokens=48,
    do_sample=False,
)

RESULT.write_text(
    json.dumps(
        {
            "prompts": TEXTS,
            "inputs": inputs["input_ids"].tolist(),
            "outputs": outputs.tolist(),
            "texts": tokenizer.batch_decode(outputs, skip_special_tokens=False),
            "pad": tokenizer.pad_token,
            "bos": tokenizer.bos_token,
            "bos_ids": tokenizer.encode(tokenizer.bos_token, add_special_tokens=False),
        }
    )
)
