"""The loss on label tokens, class weights, and label metrics in validation."""
