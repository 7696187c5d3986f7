"""The web page: predict, train, compare and view run cards. Only `page`, `launch` and `views` use gradio."""
