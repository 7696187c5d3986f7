"""What the browser gets that is no control: examples, names of fonts, and the lines that switch the language."""

from __future__ import annotations

EXAMPLES = (
    "这家饭店真贴心，知道我吃不饱还特地在里面放蟑螂",
    "房间干净，服务热情，下次还来",
    "书的内容太差了，再也不买\n屏幕很漂亮，值得购买",
)
FONTS = ("system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")
# The language is the one that was chosen last, else the browser's.
FIRST_LANGUAGE = """() => {
  const chosen = localStorage.getItem("sentifactory-language");
  const language = chosen || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  document.body.dataset.language = language;
  document.documentElement.lang = language;
  return [language];
}"""
NEW_LANGUAGE = """(language) => {
  localStorage.setItem("sentifactory-language", language);
  document.body.dataset.language = language;
  document.documentElement.lang = language;
  return [language];
}"""
