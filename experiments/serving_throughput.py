"""What continuous batching gives: the same requests to one model, served together and one at a time, in turn.

python experiments/serving_throughput.py MODEL --prompts-file experiments/prompts.jsonl --threads 1
"""

import argparse
import concurrent.futures
import http.client
import json
import statistics
import threading
import time
from pathlib import Path

import torch

import bytelm
from bytelm.serving import Engine, Limits
from bytelm.serving.server import Server, open_socket

NAME = "model"


def ask(port: int, body: dict[str, object]) -> str:
    """The text of one completion."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer["choices"][0]["text"]


def measure(
    source: str, requests: list[dict[str, object]], clients: int, max_batch: int, draft: str
) -> tuple[list[str], float]:
    """The answers to all requests, from so many clients at once, and the seconds that they took."""
    listening, ready = open_socket("127.0.0.1", 0, 60.0), threading.Event()
    engine = Engine(bytelm.load(source), draft=draft, limits=Limits(max_batch=max_batch, max_queue=len(requests) + 1))
    server = Server(engine, NAME, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    port = listening.getsockname()[1]
    thread.start()
    ready.wait()
    ask(port, requests[0])
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        texts = list(pool.map(lambda body: ask(port, body), requests))
        seconds = time.perf_counter() - began
    server.should_exit = True
    thread.join()
    return texts, seconds


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts-file", default="experiments/prompts.jsonl")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--draft", default="none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    prompts = [json.loads(line)["text"] for line in Path(given.prompts_file).read_text("utf-8").splitlines()]
    requests = [
        {"prompt": prompts[n % len(prompts)], "seed": n, "max_tokens": given.max_tokens, "temperature": 0.8}
        for n in range(given.requests)
    ]
    speeds: dict[int, list[float]] = {1: [], given.clients: []}
    answers: dict[int, list[str]] = {}
    for _ in range(given.repeats):
        for max_batch, found in speeds.items():
            answers[max_batch], seconds = measure(given.model, requests, given.clients, max_batch, given.draft)
            found.append(sum(map(len, answers[max_batch])) / seconds)
    ratios = [together / single for single, together in zip(*speeds.values(), strict=True)]
    print(
        json.dumps(
            {
                "model": given.model,
                "law": bytelm.load(given.model).law,
                "draft": given.draft,
                "threads": given.threads,
                "requests": given.requests,
                "clients": given.clients,
                "chars_per_second_one_at_a_time": statistics.median(speeds[1]),
                "chars_per_second_together": statistics.median(speeds[given.clients]),
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "same_texts": sum(map(str.__eq__, *answers.values())),
            }
        )
    )


if __name__ == "__main__":
    main()
