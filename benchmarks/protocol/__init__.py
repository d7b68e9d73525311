"""What is compared, and how: methods, variants of the recipe, fit, choice on val, test, intervals."""
