"""Everything that reads foreign bytes, each with an input made from random numbers. Used by benchmarks.fuzz."""

import gzip
import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks.fuzz_files import (
    adapter_files,
    alter_row,
    hugging_face_files,
    run_content,
    saved,
    saved_memory,
    tiny_model,
    word_encoding,
)
from benchmarks.fuzz_inputs import (
    INSTRUCTIONS,
    ODD_BYTES,
    ODD_TEXTS,
    PREFERENCES,
    SENTENCES,
    TEXTS,
    TURN,
    altered,
    command_line,
    damaged,
    odd_value,
    spliced,
)
from src.chat.session import ChatSettings
from src.checkpoint import load_base
from src.cli import flag_name, parse
from src.data.instructions import load_conversations
from src.data.preferences import load_preferences
from src.data.prompts import Message, render_conversation
from src.data.text import load_tokens
from src.memory.facts import extract_facts
from src.memory.long_term import LongTermMemory
from src.memory.sessions import SessionStore
from src.memory.typed_history import TypedHistory
from src.model.decoding.text_stream import TextStream, stop_strings
from src.model.foreign import ADAPTER_CONFIG
from src.model.load_gpt2 import load_gpt2
from src.model.peft_adapter import WEIGHT_FILES
from src.tokenizer import build_word_encoding, describe, load_encoding, load_gpt2_encoding
from src.training.optim import make_adamw
from src.training.saved_run import read_saved_run

# How often each reader is tried, against the others: fast ones more often.
READERS = {
    "instructions": 30,
    "preferences": 25,
    "stream": 60,
    "settings": 40,
    "prompt": 20,
    "text": 8,
    "words": 4,
    "token_cache": 4,
    "checkpoint": 2,
    "resume": 2,
    "hugging_face": 2,
    "adapter": 4,
    "session": 15,
    "memory": 1,
    "facts": 40,
    "history": 10,
    "flags": 6,
}
SCRIPTS = ("main", "finetune_gpt2", "instruction_tune", "dpo_train", "chat", "sk_chat")
MODULES = ("src.plan", "src.evaluate", "src.export_hf")  # run with python -m


class Readers:
    """A method per reader. Each makes its input from `rng`, in `folder`, and returns or raises as the reader does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gpt2 = load_gpt2_encoding()
        self.words_encoding = word_encoding(folder, TEXTS[0])
        self.model = tiny_model(self.words_encoding.n_vocab)
        self.run = run_content(self.model, self.words_encoding)
        self.checkpoint_bytes = saved(folder / "good.pt", self.run)
        self.config, self.weights_bytes = hugging_face_files(folder / "good.safetensors", self.model)
        self.adapter_config, self.adapter_bytes = adapter_files(folder / "adapter", self.model, folder / "good.pt")
        self.memory_bytes = saved_memory(folder / "good.sqlite3", SENTENCES[:2])

    # --- records and texts

    def instructions(self, rng: Random) -> None:
        for conversation in load_conversations(self._records(rng, INSTRUCTIONS))[:2]:
            render_conversation(conversation.messages, self.gpt2)

    def preferences(self, rng: Random) -> None:
        for preference in load_preferences(self._records(rng, PREFERENCES))[:2]:
            render_conversation([*preference.messages, Message("assistant", preference.chosen)], self.gpt2)

    def text(self, rng: Random) -> None:
        load_tokens(self._text_file(rng), self.words_encoding)

    def words(self, rng: Random) -> None:
        encoding = build_word_encoding(self._text_file(rng))
        encoding.decode(encoding.encode_ordinary(spliced(rng, TEXTS[0])))
        load_encoding(altered(rng, describe(encoding), rng.randint(0, 2)))

    def token_cache(self, rng: Random) -> None:
        file, encoding = self._file("poem.txt", TEXTS[0].encode()), self.words_encoding
        for cache in self.folder.glob("poem.txt.*.tokens"):
            shutil.rmtree(cache)
        expected = load_tokens(file, encoding).tolist()
        part = rng.choice(sorted(self.folder.glob("poem.txt.*.tokens/[it]*")))  # the index or a shard
        part.write_bytes(damaged(rng, part.read_bytes()))
        assert load_tokens(file, encoding).tolist() == expected, "other ids from a damaged cache"

    # --- models

    def checkpoint(self, rng: Random) -> None:
        load_base(str(self._checkpoint_file(rng)))

    def resume(self, rng: Random) -> None:
        saved_run = read_saved_run(self._checkpoint_file(rng))
        optimizer = make_adamw(self.model, max_lr=1e-3, weight_decay=0.1)
        saved_run.restore(self.model, optimizer, torch.amp.GradScaler("cpu", enabled=False))

    def hugging_face(self, rng: Random) -> None:
        home = self.folder / "gpt2"
        home.mkdir(exist_ok=True)
        config, weights = json.dumps(altered(rng, self.config, rng.randint(0, 2))).encode(), self.weights_bytes
        config = damaged(rng, config) if rng.random() < 0.3 else config
        weights = damaged(rng, weights) if rng.random() < 0.5 else weights
        (home / "config.json").write_bytes(config)
        (home / "model.safetensors").write_bytes(weights)
        load_gpt2(home)

    def adapter(self, rng: Random) -> None:
        home = self.folder / "adapter"
        config = json.dumps(altered(rng, self.adapter_config, rng.randint(0, 2))).encode()
        (home / ADAPTER_CONFIG).write_bytes(damaged(rng, config) if rng.random() < 0.3 else config)
        weights = damaged(rng, self.adapter_bytes) if rng.random() < 0.3 else self.adapter_bytes
        (home / WEIGHT_FILES[0]).write_bytes(weights)
        load_base(str(home))

    # --- conversations and memory

    def session(self, rng: Random) -> None:
        content = {
            "format": 1, "revision": 3, "summary": "Ann asked.",
            "messages": [{"role": m["role"], "text": m["content"], "finish_reason": "stop"} for m in TURN],
        }  # fmt: skip
        data = json.dumps(altered(rng, content, rng.randint(0, 3))).encode()
        home = self.folder / "sessions"
        home.mkdir(exist_ok=True)
        (home / "chat.json").write_bytes(damaged(rng, data) if rng.random() < 0.5 else data)
        store = SessionStore(home, print)
        conversation = store.load("chat")
        store.list_sessions()
        render_conversation([Message("user", m.text) for m in conversation.messages][:1], self.gpt2)
        self._empty(home)

    def memory(self, rng: Random) -> None:
        home = self.folder / "memory"
        home.mkdir(exist_ok=True)
        file = home / "memory.sqlite3"
        file.write_bytes(damaged(rng, self.memory_bytes) if rng.random() < 0.5 else self.memory_bytes)
        if rng.random() < 0.5:
            alter_row(rng, file)
        memory = LongTermMemory(file, print)
        try:
            memory.remember(spliced(rng, rng.choice(SENTENCES)), "chat")
            memory.recall(spliced(rng, rng.choice(SENTENCES)))
            memory.all()
        finally:
            memory.close()
            self._empty(home)

    def facts(self, rng: Random) -> None:
        extract_facts(spliced(rng, " ".join(rng.choices(SENTENCES, k=3))))

    def history(self, rng: Random) -> None:
        file = self._file("typed.txt", damaged(rng, b"\n# 2026-01-01 10:00:00\n+hello\n+there\n"))
        list(TypedHistory(file, print).load_history_strings())

    # --- settings, prompts, decoding

    def settings(self, rng: Random) -> None:
        settings = asdict(ChatSettings())
        settings.update({name: odd_value(rng) for name in rng.sample(list(settings), rng.randint(0, 2))})
        ChatSettings(**settings)
        stop_strings(rng.choice([None, odd_value(rng), [odd_value(rng), "x"], "end"]))

    def prompt(self, rng: Random) -> None:
        texts = [spliced(rng, rng.choice(TEXTS)) for _ in range(2)]
        render_conversation([Message("user", texts[0]), Message("assistant", texts[1])], self.words_encoding)

    def stream(self, rng: Random) -> None:
        encoding: Any = rng.choice([self.gpt2, self.words_encoding])
        ids = [rng.randrange(encoding.n_vocab - 1) for _ in range(rng.randint(0, 30))]
        text = encoding.decode(ids)
        stops = [text[(at := rng.randrange(len(text) + 1)) : at + rng.randint(1, 6)], rng.choice(ODD_TEXTS), "the"]
        stops = [stop for stop in stops if stop]
        shown = "".join(TextStream(ids, encoding, 100, stops))
        assert not any(stop in shown for stop in stops), "a stop string was shown"

    def flags(self, rng: Random) -> None:
        script = importlib.import_module(rng.choice(SCRIPTS + MODULES))
        names = [flag_name(name) for name in script.Flags.__dataclass_fields__]
        parse(script.Flags, command_line(rng, [*names, "--help", "--nothing"]), script.__doc__ or "")

    # --- files

    def _file(self, name: str, data: bytes) -> Path:
        file = self.folder / name
        file.write_bytes(data)
        return file

    def _empty(self, home: Path) -> None:
        for file in home.iterdir():
            file.unlink()

    def _checkpoint_file(self, rng: Random) -> Path:
        """Damaged bytes, or a well-formed file with odd content."""
        if rng.random() < 0.5:
            return self._file("model.pt", damaged(rng, self.checkpoint_bytes))
        part = rng.choice([self.run, self.run["resume"]])
        content = altered(rng, part, rng.randint(1, 3))
        saved(self.folder / "model.pt", {**self.run, "resume": content} if part is self.run["resume"] else content)
        return self.folder / "model.pt"

    def _text_file(self, rng: Random) -> Path:
        for cache in self.folder.glob("text.txt.*"):
            cache.unlink()
        data = spliced(rng, rng.choice(TEXTS)).encode("utf-8", "surrogatepass")
        return self._file("text.txt", damaged(rng, data) if rng.random() < 0.7 else data)

    def _records(self, rng: Random, shapes: list[dict[str, Any]]) -> Path:
        """A file of up to three records, in any format, with up to three wrong values and some wrong bytes."""
        records = altered(rng, rng.choices(shapes, k=rng.randint(1, 3)), rng.randint(0, 3))
        write: Callable[[Any], str] = lambda value: json.dumps(value, ensure_ascii=rng.random() < 0.5)  # noqa: E731
        kind = rng.choice(["json", "jsonl", "jsonl", "csv", "tsv", "wrapped", "pretty", "gz"])
        if kind in ("csv", "tsv") and records and isinstance(records[0], dict):
            separator = "," if kind == "csv" else "\t"
            rows = [map(str, records[0]), *(map(write, r.values()) for r in records if isinstance(r, dict))]
            text = "\n".join(separator.join(row) for row in rows)
        elif kind == "jsonl":
            text = "\n".join(map(write, records))
        elif kind == "pretty":
            text = json.dumps(records, indent=2)
        else:
            text = write({"train": records, "info": "x"} if kind == "wrapped" else records)
        data = text.encode("utf-8", "surrogatepass")
        data = rng.choice([b"\xef\xbb\xbf", b"\xff\xfe", rng.choice(ODD_BYTES)]) + data if rng.random() < 0.05 else data
        data = damaged(rng, data) if rng.random() < 0.4 else data
        if kind == "gz":
            data = gzip.compress(data, 1)
            return self._file("data.json.gz", damaged(rng, data) if rng.random() < 0.3 else data)
        return self._file(f"data.{kind if kind in ('jsonl', 'csv', 'tsv') else 'json'}", data)
