"""Texts of the report page in English and Chinese."""

import html

CHINESE = {
    "input": "输入",
    "training-free": "免训练",
    "training-free, charge": "免训练（脉冲间隔）",
    "spikes alone, Gaussian": "仅脉冲（高斯）",
    "spikes alone, interval": "仅脉冲（间隔）",
    "network": "网络",
    "sharp": "真值",
    "spikes": "脉冲",
    "contradiction": "矛盾图",
    "clip": "片段",
    "frames": "帧数",
    "gain": "增益",
    "mean over frames": "按帧平均",
    "mean over clips": "按片段平均",
}


def said(tag: str, english: str, chinese: str | None = None, attributes: str = "") -> str:
    """An element with a text in both languages; without Chinese it has the one."""
    chinese = CHINESE.get(english) if chinese is None else chinese
    translation = f' data-zh="{html.escape(chinese)}"' if chinese else ""
    return f"<{tag}{attributes and ' ' + attributes}{translation}>{html.escape(english)}</{tag}>"


def section(english: str, chinese: str, *parts: str) -> str:
    """A section under a heading in both languages; `parts` are HTML."""
    return f"<section>{said('h2', english, chinese)}{''.join(parts)}</section>"
