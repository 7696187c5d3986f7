"""Reading review files: sources, labels, chats, prompts."""
