"""Which tier should answer: complexity x intent x segment, by a table that people edit.

    table       the table, and the file it is read from
    local       the classifier by word lists; `classify` asks a model instead
    router      `route(text)`, and what came of it
    policy      the table as a policy of the climb

Measured on texts of our own (English and Portuguese, half of them to a shop): see `docs/models.md`.
"""
