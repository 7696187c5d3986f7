"""The page: predict, train, compare and look at run cards in a browser, without Python.

`page` and `running` alone need gradio; what the page does and shows stands in the other modules.
"""
