"""Special tokens of chat templates in a text. Pure.

Some servers interpret them in a message's content too, and would treat `<|im_end|>` in a
customer's text as the end of the message. A zero-width space turns them into plain characters.
"""

from __future__ import annotations

import re

_NAMES = (
    "bos|eos|pad|unk|mask|cls|sep|sop|eop|start_of_turn|end_of_turn|start_of_image|end_of_image|"
    "start_of_role|end_of_role|end_of_text|start_of_text|image_soft_token|image|audio|video|"
    "think|thinking|reasoning|tool_call|tool_calls|tool_response|tool_result|tools|function|"
    r"unused\d+|extra_id_\d+|fim_prefix|fim_middle|fim_suffix|s"
)
_BRACKETED = (
    "INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK|"
    "IMG|IMG_BREAK|IMG_END|PREFIX|MIDDLE|SUFFIX|BOS|EOS|PAD|UNK|CLS|SEP|MASK|gMASK"
)
_SPECIAL = re.compile(
    r"<(?=[|｜][^<>\n]{1,64}>)"  # <|im_end|>, <｜User｜>, <|turn>
    r"|<(?!\u200b)(?=[^<>\n]{1,64}[|｜]>)"  # <turn|>
    rf"|<(?=/?(?:{_NAMES})\s*/?>)"
    r"|<(?=<\s*/?SYS\s*>>)"
    rf"|\[(?=/?(?:{_BRACKETED})\])",
    re.IGNORECASE,
)
_PLAIN = "\u200b"


def neutralised(text: str) -> str:
    """The text without special tokens; each is still to be read by people and models."""
    return _SPECIAL.sub(rf"\g<0>{_PLAIN}", text) if "<" in text or "[" in text else text
