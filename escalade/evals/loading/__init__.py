"""Where recorded outcomes and examples come from, and what is wrong with them.

routerbench, routerarena, llmrouter, mmlu_pro, inspect_logs   files of others, into the columns of a `Draft`
parquet                                                       tables in Parquet (`pip install escalade[parquet]`)
examples                                                      DSPy examples: lists, files, DSPy's own data sets
splits                                                        test splits that are frozen by content
leaks                                                         duplicates, and questions on both sides of a split
"""
