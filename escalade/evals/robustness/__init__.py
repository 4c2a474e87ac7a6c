"""What a result is worth when the world isn't as it was recorded.

    reprice     other prices for the same attempts, and the verdicts that they change
    perturb     typos and paraphrases of questions
    flips       decisions that change when a question is written otherwise, and what that costs
    transfer    fitted on one data set, judged on another; a rung that is added
    drift       a model that isn't what it was, behind the same name

Nothing here asks a model: answers stay those that were recorded.
"""
