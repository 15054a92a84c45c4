"""A build that ends early and is begun again gives the bytes of one that was never stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from source_files import TEXTS, json_line, write_lines, write_source

from bytelm.corpus import Corpus, build_corpus, finish, shards
from bytelm.encoding import get_encoding
from bytelm.errors import CorpusError

OPTIONS = {"shard_bytes": 300, "deduplicate": True, "valid_share": 0.3, "min_characters": 1, "skip_bad_lines": True}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Files of several formats, some so small that they share a part, with bad lines, duplicates and empty texts."""
    folder = tmp_path_factory.mktemp("in")
    for number in range(6):
        texts = [f"{text}{(number * 7 + i) % 11}" for i in range(4) for text in TEXTS] + ["", "同じ文書。"]
        write_source(folder / f"{number}{('.jsonl.gz', '.parquet', '.jsonl')[number % 3]}", texts)
    write_lines(folder / "7.jsonl", [json_line("ほかにない文書。"), b"{"])
    return folder


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory):
    """The files of a build that was not stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    build_corpus(sources, get_encoding("dense-ja"), out, **OPTIONS)
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def parts_kept(out: Path) -> int:
    return len(list((out / "unfinished").glob("part-*.json")))


class Stop(Exception):
    pass


def stop_after(count: int):
    """A progress that ends the build at its message of that number."""
    seen = []

    def progress(state):
        seen.append(state)
        if len(seen) > count:
            raise Stop

    return progress


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_at_every_message(sources, whole, tmp_path, workers):
    out, stops, kept = tmp_path / "out", 0, []
    assert len(whole) > 8
    while stops < 200:
        try:
            build_corpus(
                sources, get_encoding("dense-ja"), out, workers=workers, progress=stop_after(stops % 40), **OPTIONS
            )
        except Stop:
            stops += 1 if workers == 0 else 13
            kept.append(parts_kept(out))
            assert not any(path.name.endswith(".partial") for path in out.rglob("*"))
            assert not list(out.rglob("manifest.json"))
        else:
            break
    assert contents(out) == whole
    assert kept == sorted(kept)
    assert max(kept) > 2


@pytest.mark.parametrize("step", range(0, 40, 3))
def test_stopped_while_finishing(sources, whole, tmp_path, monkeypatch, step):
    """Moving shards, removing those of an older corpus and writing manifests may break off anywhere."""
    out = tmp_path / "out"
    old = write_source(tmp_path / "old.txt", ["古い" * 2000])
    build_corpus(old, get_encoding("utf8"), out, shard_bytes=300, valid_share=0.0)
    build_corpus(write_lines(tmp_path / "old.jsonl", [json_line(f"古い{i}") for i in range(400)]),
                 get_encoding("utf8"), out, overwrite=True, shard_bytes=100, valid_share=0.5)  # fmt: skip
    calls = []

    def counted(function):
        def call(*arguments, **keys):
            calls.append(function)
            if len(calls) == step + 1:
                raise OSError(5, "Input/output error")
            return function(*arguments, **keys)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "touch", "mkdir"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        begin = finish.finish

        def only_here(*arguments):
            calls.clear()
            return begin(*arguments)

        patch.setattr("bytelm.corpus.build.finish", only_here)
        # before finishing nothing is to fail
        calls.extend([None] * 10_000)
        with pytest.raises(CorpusError, match="Input/output error"):
            build_corpus(sources, get_encoding("dense-ja"), out, overwrite=True, **OPTIONS)
    for manifest in out.rglob("manifest.json"):  # of the old corpora or of the new ones, and whole
        Corpus.open(manifest.parent)
    build_corpus(sources, get_encoding("dense-ja"), out, overwrite=True, **OPTIONS)
    assert contents(out) == whole


class Killed(BaseException):
    pass


def die_after(monkeypatch, count: int) -> None:
    """From that change of a folder on, counted from where a build finishes, no change comes about any more."""
    done, begin = [], finish.finish

    def dying(function):
        def call(*arguments, **keys):
            if begun and len(done) >= count:
                raise Killed
            done.extend(begun)
            return function(*arguments, **keys)

        return call

    begun = []
    for name in ("replace", "unlink", "touch", "mkdir", "rmdir"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))
    monkeypatch.setattr("bytelm.corpus.build.finish", lambda *arguments: begun.append(1) or begin(*arguments))


def test_killed_at_every_step_of_finishing(tmp_path, monkeypatch):
    """Until its folder is gone, a build goes on with the call that began it."""
    sources, options = tmp_path / "in", OPTIONS | {"shard_bytes": 200}
    sources.mkdir()
    for number in range(3):
        write_source(sources / f"{number}.jsonl", [f"{text}{number}" for text in TEXTS])
    whole = build_corpus(sources, get_encoding("dense-ja"), tmp_path / "whole", **options)
    for count in range(500):
        out = tmp_path / str(count)
        with monkeypatch.context() as patch:
            die_after(patch, count)
            try:
                build_corpus(sources, get_encoding("dense-ja"), out, **options)
            except Killed:
                pass
            else:
                break
        if contents(out) != contents(tmp_path / "whole"):
            assert build_corpus(sources, get_encoding("dense-ja"), out, **options) == whole
        assert contents(out) == contents(tmp_path / "whole")
    assert 20 < count < 500


def test_finished_parts_are_verified(sources, whole, tmp_path, caplog):
    out = tmp_path / "out"
    states = []

    def stop(state):
        states.append(state)
        if state.stage == "encoding" and "3.jsonl" in state.source:
            raise Stop

    with pytest.raises(Stop):
        build_corpus(sources, get_encoding("dense-ja"), out, progress=stop, **OPTIONS)
    kept = len(list((out / "unfinished").glob("part-*[0-9].json")))
    assert kept >= 2
    damaged = min((out / "unfinished").glob("part-*.bin"))
    damaged.write_bytes(bytes(len(damaged.read_bytes())))
    states.clear()
    build_corpus(sources, get_encoding("dense-ja"), out, progress=states.append, **OPTIONS)
    assert contents(out) == whole
    assert states[-1].kept_parts == kept - 1
    assert f"{damaged.name}: altered: found SHA-256" in caplog.text
    assert "the part is built again" in caplog.text


def test_a_part_kept_is_not_read_again(tmp_path):
    good, bad = write_lines(tmp_path / "a.jsonl", [json_line("一" * 300)]), tmp_path / "b.jsonl"
    write_lines(bad, [b"{" + b" " * 500])
    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(CorpusError, match=r"b\.jsonl:1"):
            build_corpus([good, bad], get_encoding("utf8"), out, shard_bytes=400)
        record = out / "unfinished" / "part-00000.json"
        stamp = (out / "unfinished" / "part-00000.all.00000.bin").stat()
        assert parts_kept(out) == 1
        assert record.is_file()
    assert (out / "unfinished" / "part-00000.all.00000.bin").stat().st_ino == stamp.st_ino


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_characters": 3}, "unfinished build with min_characters = None, expected 3"),
        ({"shard_bytes": 500}, "unfinished build with shard_bytes = 400, expected 500"),
        ({"encoding": "utf16"}, "unfinished build with encoding = "),
        ({"added": "c.jsonl"}, r"other sources \(.*c\.jsonl is new\)"),
        ({"changed": "b.jsonl"}, r"other sources \(.*b\.jsonl has changed\)"),
        ({"removed": "b.jsonl"}, r"other sources \(.*b\.jsonl is no longer there\)"),
        ({"torn": "plan.json"}, r"plan\.json: found no plan of a build"),
    ],
)
def test_another_plan_is_refused(tmp_path, change, message):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_lines(folder / "a.jsonl", [json_line("一" * 300)])
    write_lines(folder / "b.jsonl", [b"{" + b" " * 500])
    with pytest.raises(CorpusError, match=r"b\.jsonl:1"):
        build_corpus(folder, get_encoding("utf8"), out, shard_bytes=400)
    options = {"shard_bytes": 400} | {name: change[name] for name in change if name in OPTIONS}
    write_lines(tmp_path / "good.jsonl", [json_line("二")])
    match change:
        case {"added": name}:
            write_lines(folder / name, [json_line("三")])
        case {"changed": name}:
            write_lines(folder / name, [json_line("二" * 300)])
        case {"removed": name}:
            (folder / name).unlink()
        case {"torn": name}:
            (out / "unfinished" / name).write_text('{"format')
    encoding = get_encoding(change.get("encoding", "utf8"))
    with pytest.raises(CorpusError, match=message) as error:
        build_corpus(folder, encoding, out, **options)
    assert "\n" not in str(error.value)
    assert "`overwrite` starts anew" in str(error.value)
    build_corpus(tmp_path / "good.jsonl", encoding, out, overwrite=True)
    assert sorted(contents(out)) == ["manifest.json", "shard-00000.bin"]


HOLD = """
import sys, time
from bytelm.corpus import build_corpus
from bytelm.encoding import get_encoding

def wait(progress):
    print("began", flush=True)
    time.sleep(60)

build_corpus(sys.argv[1], get_encoding("utf8"), sys.argv[2], progress=wait)
"""


def test_two_builds_do_not_share_a_folder(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    monkeypatch.setattr("bytelm.corpus.team._LOCK_WAIT_S", 0.1)
    source = write_source(tmp_path / "x.txt", ["一"])
    command = [sys.executable, "-c", HOLD, str(source), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"began\n"
        with pytest.raises(CorpusError, match=r"out.unfinished: found another build that writes here, expected none"):
            build_corpus(source, get_encoding("utf8"), tmp_path / "out")
        other.kill()
    build_corpus(source, get_encoding("utf8"), tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "shard-00000.bin"]


# A process that is killed

BUILD = """
import json, sys
from bytelm.corpus import build_corpus
from bytelm.encoding import get_encoding

if __name__ == "__main__":
    print("began", flush=True)
    source, out, workers, options = sys.argv[1:]
    build_corpus(source, get_encoding("dense-ja"), out, workers=int(workers), **json.loads(options))
"""


def is_complete(out: Path) -> bool:
    return (out / "valid" / "manifest.json").exists() and not any(out.glob("unfinished/*"))


def kill_and_go_on(tmp_path, num_kills: int, workers: int, seed: int) -> None:
    """Builds of larger files are killed at random moments, until one comes to its end."""
    rng = random.Random(seed)
    folder, options = tmp_path / "in", OPTIONS | {"shard_bytes": 20_000}
    folder.mkdir()
    for number in range(24):
        texts = [f"{text}{number * i % 701}" * 9 for i in range(60) for text in TEXTS]
        write_source(folder / f"{number:02d}.jsonl{('.gz', '.xz', '')[number % 3]}", texts)
    script = tmp_path / "script.py"
    script.write_text(BUILD)
    arguments = [sys.executable, str(script), str(folder)]
    command = [*arguments, str(tmp_path / "whole"), str(workers), json.dumps(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        began = time.monotonic()
    assert process.returncode == 0
    taken = time.monotonic() - began
    killed, out = 0, tmp_path / "out"
    for _ in range(num_kills + 5):
        command = [*arguments, str(out), str(workers), json.dumps(options)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, taken))
            process.send_signal(signal.SIGKILL)
        assert process.returncode in (0, -signal.SIGKILL)
        killed += process.returncode != 0
        if killed == num_kills or (killed and is_complete(out)):
            break
        if is_complete(out):  # the first build was slower: its files were not in memory yet
            shutil.rmtree(out)
            taken /= 2
    if not is_complete(out):
        subprocess.run([*arguments, str(out), str(workers), json.dumps(options)], check=True)
    assert killed >= 1
    assert contents(out) == contents(tmp_path / "whole")
    Corpus.open(out / "train")


@pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")
def test_killed(tmp_path):
    kill_and_go_on(tmp_path, num_kills=1, workers=1, seed=1)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random(tmp_path, workers, seed):
    kill_and_go_on(tmp_path, num_kills=10, workers=workers, seed=seed)


def test_the_hash_of_shards_is_that_of_hashlib(tmp_path):
    import hashlib

    path = tmp_path / "x.bin"
    path.write_bytes(bytes(range(256)) * 40_000)
    found = shards.describe_file(path)
    assert (found.bytes, found.sha256) == (10_240_000, hashlib.sha256(path.read_bytes()).hexdigest())
