"""What games of OpenSpiel are about, in words."""

# What a game is about, for models that do not know it; the rules that its observations leave open.
ABOUT = {
    "hanabi": (
        "You play Hanabi together. Cards have a colour and a rank; stacks are built from 1 upwards, one for each "
        "colour, and each card on a stack is a point for all. You see all cards but your own (XX). Playing a card that "
        "does not fit costs a life, and without lives all points are lost. Revealing costs an information token, "
        "discarding gains one."
    ),
    "tiny_hanabi": (
        "You and your partner each have a card that only the holder sees, and each choose one action. The first "
        "one's action tells the second one something. Cards and actions decide how many points both get."
    ),
    "tiny_bridge_2p": (
        "You and your partner bid with two cards each, out of jacks, queens, kings and aces of hearts and spades. You "
        "see your own. The last bid is played: a higher one pays both more, and costs both if the cards do not make it."
    ),
    "bridge_uncontested_bidding": (
        "You and your partner bid in bridge, and the others pass. You see your own hand: spades, hearts, diamonds, "
        "clubs. The last bid is the contract; both are paid by how near its score comes to that of the best one."
    ),
    "coop_box_pushing": (
        "Two robots push boxes to the top of a field. The big box, which pays most, moves only if both push at once. "
        "Each step costs a little. You see what is before you."
    ),
    "matrix_coordination": "You and your partner each choose at once. Both get a point if you choose the same.",
    "negotiation": (
        "You and another divide items. Your values are yours alone to know. By turns you propose what you would keep; "
        "an accepted proposal pays each its values, no agreement pays nothing."
    ),
    "bargaining": (
        "You and another divide a pool of items that you value differently. An offer says what the other one gets. "
        "An agreed offer pays each the values of the items; no agreement pays nothing."
    ),
    "trade_comm": (
        "Each of you has an item that only you see. First each says one thing, then each proposes a trade: the item "
        "given and the item wanted. Both get a point if the trades fit."
    ),
    "lewis_signaling": (
        "The first sees a state and sends a message; the second sees the message and chooses an action. Both get a "
        "point if the action has the state's number."
    ),
    "coin_game": (
        "You and another walk on a field with coins. One colour is your favourite, and one is the other one's; only "
        "you know yours. Coins of either favourite colour pay both of you, other coins cost both."
    ),
    "repeated_game": "You and another choose at once, again and again, and see what was chosen. Points add up.",
}
