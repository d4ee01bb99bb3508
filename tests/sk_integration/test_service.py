"""The model as a service of the real Semantic Kernel: histories in, answers out, event loop never blocked."""

import asyncio
import copy
import threading

import pytest
from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import (
    AnnotationContent,
    ChatHistory,
    ChatHistorySummarizationReducer,
    ChatMessageContent,
    FinishReason,
    FunctionResultContent,
    ImageContent,
    ReasoningContent,
    TextContent,
)
from semantic_kernel.exceptions import ServiceInvalidRequestError, ServiceResponseException
from semantic_kernel.functions import KernelArguments, kernel_function

from src.chat.messages import dropped_note
from src.chat.session import RAW_MODEL_NOTE, ChatSettings
from src.sk_integration.history import parse_history
from src.sk_integration.settings import GPT2ChatSettings
from tests.fakes import CHAT_SETTINGS, ENCODING, rendered
from tests.fakes_sk import scripted_service


def history(*messages: tuple[str, str]) -> ChatHistory:
    return ChatHistory(messages=[ChatMessageContent(role=role, content=text) for role, text in messages])


def ask(model, *messages, **settings):
    return asyncio.run(model.get_chat_message_content(history(*messages), GPT2ChatSettings(**settings)))


async def pieces(model, messages, **settings):
    return [part async for part in model.get_streaming_chat_message_content(messages, GPT2ChatSettings(**settings))]


@pytest.mark.parametrize(
    ("messages", "system", "turns", "message"),
    [
        ([("user", "Hi")], "", [], "Hi"),
        ([("system", "Be brief."), ("developer", "Rhyme."), ("user", "Hi")], "Be brief.\n\nRhyme.", [], "Hi"),
        ([("user", "a"), ("assistant", "b"), ("user", "c")], "", [("a", "b")], "c"),
        ([("user", "a"), ("user", "b")], "", [], "a\n\nb"),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")], "", [("a", "b\n\nc")], "d"),
        ([("assistant", "Welcome!"), ("user", "a")], "", [], "a"),
        ([("user", "a"), ("assistant", "b")], "", [], "a\n\nb"),
        ([("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")], "", [("a", "b")], "c\n\nd"),
        ([("assistant", "b")], "", [], "b"),
        ([("user", "a"), ("assistant", "b"), ("system", "Summarise.")], "", [("a", "b")], "Summarise."),
        ([("user", "a"), ("assistant", " "), ("user", ""), ("user", "b")], "", [], "a\n\nb"),
    ],
)
def test_a_history_in_any_order_becomes_turns(messages, system, turns, message):
    request = parse_history(history(*messages).messages)
    assert (request.system, list(request.turns), request.message) == (system, turns, message)


def test_tool_results_are_text_and_images_are_refused():
    result = ChatMessageContent(role="tool", items=[FunctionResultContent(id="1", name="time", result="noon")])
    question = ChatMessageContent(role="user", items=[TextContent(text="one"), TextContent(text="two")])
    assert parse_history([question, result]).message == "one\ntwo\n\nnoon"
    with pytest.raises(ServiceInvalidRequestError, match="takes text only, but a message contains ImageContent"):
        parse_history([ChatMessageContent(role="user", items=[ImageContent(uri="http://x/y.png")])])
    with pytest.raises(ServiceInvalidRequestError, match="no message to answer; add a user message"):
        parse_history([ChatMessageContent(role="system", content="Be brief.")])


@pytest.mark.parametrize(
    "extra", [ReasoningContent(text="The map says so."), AnnotationContent(quote="twelve", url="https://a.b")]
)
def test_reasoning_and_annotations_are_left_out(extra):
    answer = ChatMessageContent(role="assistant", items=[extra, TextContent(text="Twelve kilometres.")])
    messages = [*history(("user", "How far?")).messages, answer, *history(("user", "And back?")).messages]
    request = parse_history(messages)
    assert request.turns == (("How far?", "Twelve kilometres."),) and request.skipped in ("reasoning", "annotations")
    model, _, notes = scripted_service("a", "b")
    for _ in range(2):
        asyncio.run(model.get_chat_message_content(ChatHistory(messages=messages), GPT2ChatSettings()))
    assert notes == [f"skipped in the chat history, because this model reads text only: {request.skipped}"]


def test_the_prompt_matches_the_training_format():
    model, generator, _ = scripted_service("Rome.")
    messages = [("system", "Be brief."), ("user", "France?"), ("assistant", "Paris."), ("user", "Italy?")]
    answer = ask(model, *messages, temperature=0.0, seed=3)
    assert generator.prompt_texts == [rendered("France?", "Paris.", "Italy?", system="Be brief.")]
    assert generator.settings[0]["temperature"] == 0.0 and generator.settings[0]["seed"] == 3
    assert (answer.content, answer.role.value, answer.finish_reason) == ("Rome.", "assistant", FinishReason.STOP)


def test_a_stream_adds_up_with_finish_reason_and_usage():
    model, generator, notes = scripted_service("one two three four")
    parts = asyncio.run(pieces(model, history(("user", "Count")), max_tokens=3))
    whole = sum(parts[1:], parts[0])
    assert (whole.content, whole.finish_reason, len(parts)) == ("one two three", FinishReason.LENGTH, 4)
    usage = parts[-1].metadata["usage"]
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        len(ENCODING.encode_ordinary(generator.prompt_texts[0])),
        3,
    )
    assert notes == []  # the finish reason says it


def test_requests_share_a_prefix_cache():
    model, generator, _ = scripted_service("one", "two")
    ask(model, ("user", "a"))
    ask(model, ("user", "a"), ("assistant", "one"), ("user", "b"))
    assert generator.prefix_caches[0] is generator.prefix_caches[1] is not None


def test_dropped_messages_are_counted_and_noted():
    model, generator, notes = scripted_service("fine", context_length=64)
    messages = [
        ("user", "first"),
        ("assistant", "word " * 20),
        ("user", "second"),
        ("assistant", "two"),
        ("user", "third"),
    ]
    answer = ask(model, *messages, max_tokens=20)
    assert answer.metadata["dropped_messages"] == 2
    assert generator.prompt_texts == [rendered("second", "two", "third")]
    assert notes == [dropped_note(64, 44)]


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_an_abandoned_answer_stops_within_a_token(how):
    resume = threading.Event()
    model, generator, _ = scripted_service([" one two", lambda: resume.wait(60), " three" * 15], "next")

    async def leave():
        stream = model.get_streaming_chat_message_content(history(("user", "Count")), GPT2ChatSettings())
        assert [(await anext(stream)).content for _ in range(2)] == ["one", " two"]
        if how == "closed":
            await stream.aclose()
            for _ in range(10):  # Semantic Kernel leaves closing its inner generators to the loop
                await asyncio.sleep(0)
        else:
            reading = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
        resume.set()
        return await model.get_chat_message_content(history(("user", "Go on")), GPT2ChatSettings())

    assert asyncio.run(leave()).content == "next"
    assert generator.n_generated <= 3 + 1  # one token after the first answer was abandoned, and the next answer


def test_generation_does_not_block_the_event_loop():
    loops, loop_ran = [], threading.Event()

    def compute():
        loops[0].call_soon_threadsafe(loop_ran.set)
        assert loop_ran.wait(20), "the loop was blocked"

    model, _, _ = scripted_service([compute, "done"])

    async def answer():
        loops.append(asyncio.get_running_loop())
        return await model.get_chat_message_content(history(("user", "Hi")), GPT2ChatSettings())

    assert asyncio.run(answer()).content == "done"


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(RuntimeError("no memory"), ServiceResponseException), (ValueError("bad id"), ServiceInvalidRequestError)],
)
def test_a_failure_is_a_service_error_and_the_next_answer_works(failure, raised):
    model, _, _ = scripted_service(["One", failure], "fine")
    with pytest.raises(raised, match=str(failure)) as error:
        ask(model, ("user", "Tell"))
    assert error.value.__cause__ is failure
    assert ask(model, ("user", "Tell")).content == "fine"


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -1}, {"top_k": 0}, {"top_p": 1.5}, {"max_tokens": 0}, {"repetition_penalty": 0}, {"seed": -1}],
)
def test_settings_have_bounds(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        GPT2ChatSettings(**bad)


def test_none_disables_a_filter_and_settings_survive_the_round_trip():
    assert (GPT2ChatSettings(top_k=None).top_k, GPT2ChatSettings(top_p=None).top_p) == (None, None)
    assert GPT2ChatSettings.of(CHAT_SETTINGS, "gpt2").chat_settings() == CHAT_SETTINGS
    assert GPT2ChatSettings().chat_settings() == ChatSettings()


def test_a_bad_assignment_is_refused_and_changes_nothing():
    settings = GPT2ChatSettings(top_k=7)
    with pytest.raises(ValueError, match="top_k must be a whole number of at least 1, or None to disable it, got 0"):
        settings.top_k = 0
    assert settings.top_k == 7


def test_generic_settings_work_and_unknown_ones_are_noted_once():
    model, generator, notes = scripted_service("a", "b")
    kernel = Kernel(services=model)
    generic = PromptExecutionSettings(max_tokens=7, temperature=0.5, presence_penalty=1)
    for _ in range(2):
        asyncio.run(kernel.invoke_prompt("Hi", arguments=KernelArguments(settings=generic)))
    assert generator.settings[1]["max_new_tokens"] == 7 and generator.settings[1]["temperature"] == 0.5
    assert notes == ["ignored settings that this model does not have: presence_penalty"]


@pytest.mark.parametrize(
    "given",
    [
        PromptExecutionSettings(max_completion_tokens=9, stop=["."], n=1, presence_penalty=0, user="me"),
        PromptExecutionSettings(max_new_tokens=9, stop_sequences=".", frequency_penalty=0.0),
        PromptExecutionSettings(extension_data={"max_completion_tokens": 9, "stop": "."}),
        OpenAIChatPromptExecutionSettings(max_completion_tokens=9, stop=["."], number_of_responses=1, stream=True),
        OpenAIChatPromptExecutionSettings(max_completion_tokens=9, max_tokens=None, stop="."),
        GPT2ChatSettings(max_tokens=9, max_completion_tokens=5, stop="."),
    ],
)
def test_names_of_other_services_are_mapped(given):
    model, generator, notes = scripted_service("Once. Twice.")
    answer = asyncio.run(model.get_chat_message_content(history(("user", "Hi")), given))
    assert (answer.content, answer.finish_reason) == ("Once", FinishReason.STOP)
    assert generator.settings[0]["max_new_tokens"] == 9 and notes == []


def test_settings_that_cannot_be_mapped_are_noted():
    model, _, notes = scripted_service("a")
    given = PromptExecutionSettings(n=3, response_format="json", presence_penalty=0.5)
    asyncio.run(model.get_chat_message_content(history(("user", "Hi")), given))
    assert notes == ["ignored settings that this model does not have: n, presence_penalty, response_format"]


@pytest.mark.parametrize("bad", [[""], 5, [5]])
def test_a_bad_stop_is_refused(bad):
    with pytest.raises(ValueError, match="stop"):
        GPT2ChatSettings(stop=bad)


@pytest.mark.parametrize(
    ("behaviour", "plugins", "noted"),
    [
        (FunctionChoiceBehavior.Auto(), True, True),
        (FunctionChoiceBehavior.Auto(), False, False),  # the default of an agent
        (FunctionChoiceBehavior.NoneInvoke(), True, False),
    ],
)
def test_functions_that_are_never_called_are_noted_once(behaviour, plugins, noted):
    model, _, notes = scripted_service("a", "b", "c")
    kernel = Kernel(services=model)
    if plugins:
        kernel.add_plugin({"now": kernel_function(lambda: "noon", name="now")}, "clock")
    settings = PromptExecutionSettings(function_choice_behavior=behaviour)

    async def use():
        for _ in range(2):
            await model.get_chat_message_content(history(("user", "Hi")), settings, kernel=kernel)
        stream = model.get_streaming_chat_message_content(history(("user", "Hi")), settings, kernel=kernel)
        return [part async for part in stream]

    assert asyncio.run(use())
    expected = "this model cannot call functions: function_choice_behavior 'auto' is ignored"
    assert notes == ([expected] if noted else [])


@pytest.mark.parametrize("method", ["get_chat_message_content", "get_streaming_chat_message_content"])
def test_a_required_function_call_is_refused(method):
    model, generator, _ = scripted_service("a")
    settings = PromptExecutionSettings(function_choice_behavior=FunctionChoiceBehavior.Required())

    async def use():
        answer = getattr(model, method)(history(("user", "Hi")), settings)
        return await answer if method == "get_chat_message_content" else [part async for part in answer]

    with pytest.raises(ServiceInvalidRequestError, match="cannot call functions, but the request requires a call"):
        asyncio.run(use())
    assert generator.prompt_texts == []


def test_the_service_works_in_templates_and_agents():
    model, generator, _ = scripted_service("Paris.", "Bonjour.", "Au revoir.")
    kernel = Kernel()
    kernel.add_service(model)
    agent = ChatCompletionAgent(kernel=kernel, name="teacher", instructions="Speak French.")

    async def use():
        answer = await kernel.invoke_prompt("What is the capital of {{$country}}?", country="France")
        first = await agent.get_response("Hello")
        streamed = [part async for part in agent.invoke_stream("Goodbye", thread=first.thread)]
        return str(answer), str(first), "".join(str(part) for part in streamed)

    assert asyncio.run(use()) == ("Paris.", "Bonjour.", "Au revoir.")
    assert generator.prompt_texts[0] == rendered("What is the capital of France?")
    assert generator.prompt_texts[2] == rendered("Hello", "Bonjour.", "Goodbye", system="Speak French.")


def test_a_summarization_reducer_gets_its_summary():
    model, generator, _ = scripted_service("They said hello.")
    short = ChatHistorySummarizationReducer(
        service=model, target_count=1, threshold_count=0, summarization_instructions="Summarise.",
        messages=history(("user", "Hello"), ("assistant", "Hi"), ("user", "Bye")).messages,
    )  # fmt: skip
    asyncio.run(short.reduce())
    assert short.messages[0].content == "They said hello."
    assert generator.prompt_texts[0].endswith("Summarise.\n\n### Response:\n")


def test_a_raw_model_continues_text_and_is_noted_once():
    model, generator, notes = scripted_service(" upon a time", " home", template=None)
    assert notes == [RAW_MODEL_NOTE]
    assert ask(model, ("user", "Once")).content == " upon a time"
    ask(model, ("system", "A tale."), ("user", "Once"), ("assistant", " upon"), ("user", "we went"))
    assert generator.prompt_texts == ["Once", "A tale.\nOnce upon\nwe went"]
    assert notes == [RAW_MODEL_NOTE]


def test_an_unknown_template_is_refused_and_copies_share_weights():
    with pytest.raises(ValueError, match="'alpaca'"):
        scripted_service(template="alpaca")
    model, _, _ = scripted_service()
    assert copy.deepcopy(model) is model
