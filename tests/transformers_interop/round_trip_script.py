"""Without bytelm: save and load again, train a little, generate through a pipeline, stop at strings."""

import json
import sys
import warnings
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, pipeline

warnings.filterwarnings("ignore")
MODEL, WORK = sys.argv[1], Path(sys.argv[2])
TEXT = "祖母の台所には、乾いた昆布と古い時計があった。"

config = AutoConfig.from_pretrained(MODEL, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(MODEL, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(MODEL, trust_remote_code=True)
found = {"version": transformers.__version__, "vocab_size": config.vocab_size}

model.save_pretrained(WORK / "saved")
tokenizer.save_pretrained(WORK / "saved")
again = AutoModelForCausalLM.from_pretrained(WORK / "saved", trust_remote_code=True)
same_tokenizer = AutoTokenizer.from_pretrained(WORK / "saved", trust_remote_code=True)
old, new = model.state_dict(), again.state_dict()
found["bitwise"] = old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
found["same_ids"] = tokenizer(TEXT)["input_ids"] == same_tokenizer(TEXT)["input_ids"]

inputs = tokenizer(["雨のあと", "駅"], padding=True, return_tensors="pt")
with torch.no_grad():
    found["same_logits"] = torch.equal(model(**inputs).logits, again(**inputs).logits)
first, second = (
    one.generate(**inputs, max_new_tokens=12, do_sample=True, top_k=40, seed=3).tolist() for one in (model, again)
)
found["same_text"] = first == second

speak = pipeline("text-generation", model=model, tokenizer=tokenizer)
found["pipeline"] = speak(TEXT, max_new_tokens=10, do_sample=False)[0]["generated_text"]
found["text"] = TEXT

rows = [tokenizer(TEXT)["input_ids"]] * 4
data = [{"input_ids": torch.tensor(row), "labels": torch.tensor(row)} for row in rows]
arguments = TrainingArguments(
    output_dir=str(WORK / "run"),
    max_steps=6,
    per_device_train_batch_size=2,
    learning_rate=3e-3,
    logging_steps=1,
    save_strategy="no",
    report_to=[],
    use_cpu=True,
    disable_tqdm=True,
)
trainer = Trainer(model=again, args=arguments, train_dataset=data)
trainer.train()
found["losses"] = [line["loss"] for line in trainer.state.log_history if "loss" in line]

(WORK / "found.json").write_text(json.dumps(found))
