"""Faults of trials: the refusals of calls. Codes below 900 are those of the MiWaves service."""

from services.core.refusals import Fault


class TrialFault(Fault):
    """A fault of a trial: error_code, HTTP status and message."""

    PARTICIPANT_USER = 100, 422, "user_id must be 1 to 128 printable characters."
    PARTICIPANT_START = 101, 422, "rl_start_date must be a date inside the consent dates."
    PARTICIPANT_END = (
        102,
        422,
        "rl_end_date must be a date on or after rl_start_date, inside the consent dates.",
    )
    CONSENT_START = 103, 422, "consent_start_date must be a date."
    CONSENT_END = 104, 422, "consent_end_date must be a date on or after consent_start_date."
    MORNINGS = 105, 422, "morning_notification_time_start must be 7 times HHMM, Monday first."
    EVENINGS = (
        106,
        422,
        "evening_notification_time_start must be 7 times HHMM, each after that day's morning.",
    )
    PARTICIPANT_EXISTS = 108, 409, "This user_id is registered already."
    TIMEZONE = 110, 422, "timezone must be an IANA name."
    PARTICIPANT_ENDED = 111, 409, "The participant has ended the trial already."
    ACTION_USER = 200, 422, "user_id must be 1 to 128 printable characters."
    FINISHED_EMA = 201, 422, "finished_ema must be true or false."
    APP_USE_FLAG = 202, 422, "app_use_flag must be true or false."
    ACTION_UNKNOWN = 203, 404, "This user_id is not registered."
    ACTIVITY_RESPONSE = (
        209,
        422,
        "activity_question_response must be true or false where the survey was finished.",
    )
    CANNABIS_USE = 210, 422, "cannabis_use must be a list of numbers where the survey was finished."
    NOT_DECIDING = 211, 409, "The participant's phase or a pause of the study forbids new decisions."
    INDEX_PASSED = (
        212,
        409,
        "This decision_index has passed without a decision, or lies beyond the study's length.",
    )
    OUTSIDE_DATES = 213, 409, "The local date lies outside rl_start_date and rl_end_date."
    WINDOW_UNKNOWN = 300, 404, "This user_id is not registered."
    WINDOW_PHASE = 301, 409, "The participant has no window to end."
    WINDOW_UNDECIDED = 302, 409, "There is no decision at this decision_index."
    STUDY_CLOSED = 932, 409, "The study is closed for good."
    POLICY_PRUNED = 933, 409, "The policy's blocks are no longer kept: it cannot serve."
