"""The pipeline from a block to equations: arguments are checked first, then the stages run in order."""
