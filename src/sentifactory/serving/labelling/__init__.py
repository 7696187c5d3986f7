"""Files of reviews, labelled in bounded memory."""
