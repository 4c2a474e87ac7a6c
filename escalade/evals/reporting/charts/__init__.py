"""The pictures of a report, as SVG that a page holds: without scripts, fonts or ids, coloured by the page's classes.

svg           elements and texts, escaped; how wide a text is
scale         from figures to pixels, and where the ticks stand
labels        names beside points, so that none lies on another
frontier      quality against cost, with intervals both ways
reliability   how often a rung is right at what it says
histogram     what a question costs
categories    quality per category
interval      an interval in a cell of a table
"""
